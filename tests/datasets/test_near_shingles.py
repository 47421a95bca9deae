"""What two documents are compared by: tokens, shingles, and the exact similarity of their sets."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.pipeline.near.shingles import BLOCK_BYTES, blocks, byte_lengths, shingles, shingles_of
from datasets.pipeline.near.similarity import jaccard

TEXTS = st.lists(st.text(alphabet="aB_0é - ", max_size=40), max_size=12)


def tokens(text: str) -> list[bytes]:
    return re.findall(rb"[0-9a-z_\x80-\xff]+", text.encode().lower())


def model(text: str, size: int) -> list[tuple[bytes, ...]]:
    """The same, the slow way."""
    found = tokens(text)
    if len(found) < size:
        return [tuple(found)] if found else []
    return [tuple(found[place : place + size]) for place in range(len(found) - size + 1)]


def hashes(texts: list[str], size: int) -> list[list[int]]:
    found = shingles_of(pa.array(texts, pa.string()), size)
    return [found.hashes[begin:end].tolist() for begin, end in pairwise(found.starts)]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("def f(x):\n\treturn x+1", ["def", "f", "x", "return", "x", "1"]),
        ("CamelCase snake_case __x__ 0x1F", ["camelcase", "snake_case", "__x__", "0x1f"]),
        ("a.b-c/d@e[f`g{h:i", ["a", "b", "c", "d", "e", "f", "g", "h", "i"]),
        ("naïve Ünïcode", ["naïve", "Ünïcode"]),
        ("日本 語。x", ["日本", "語。x"]),
        ("a\0b\x7fc", ["a", "b", "c"]),
        ("", []),
        (" \n.,;", []),
    ],
)
def test_a_token_is_a_run_of_letters_digits_underscores_and_bytes_beyond_ascii(text: str, same: list[str]) -> None:
    assert hashes([text], 1) == [[hashes([one], 1)[0][0] for one in same]]


def test_only_ascii_letters_count_as_lower_case() -> None:
    assert hashes(["FOO"], 1) == hashes(["foo"], 1)
    assert hashes(["Ä"], 1) != hashes(["ä"], 1)
    assert hashes(["@"], 1) == [[]] != hashes(["`a"], 1)


@pytest.mark.parametrize(
    ("text", "count"),
    [("a b c d e f g", 3), ("a b c d e", 1), ("a b c d", 1), ("a", 1), ("", 0), ("a b c d e " * 3, 11)],
)
def test_a_document_has_a_shingle_for_each_five_successive_tokens_and_one_if_it_has_fewer(
    text: str, count: int
) -> None:
    assert [len(found) for found in hashes(["x y z", text, "x y z"], 5)] == [1, count, 1]


def test_a_short_document_is_another_shingle_than_one_that_goes_on() -> None:
    distinct = ["a", "a a", "a a a", "b a", "a b", "a a a a", "a a a a a", "a a a b"]
    assert len({found[0] for found in hashes(distinct, 5)}) == len(distinct)


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.integers(1, 6))
def test_shingles_are_equal_where_their_tokens_are_whatever_stands_beside(texts: list[str], size: int) -> None:
    expected = [model(text, size) for text in texts]
    found = hashes(texts, size)
    assert [len(each) for each in found] == [len(each) for each in expected]
    pairs = {pair for each in zip(found, expected, strict=True) for pair in zip(*each, strict=True)}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    assert found == [hashes([text], size)[0] for text in texts]


@pytest.mark.parametrize("size", [1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 100, 10_000])
def test_a_token_counts_to_its_last_byte(size: int) -> None:
    same = "x" * (size - 1)
    first, again, other, longer = hashes([same + "a", same + "A", same + "b", same + "aa"], 1)
    assert first == again
    assert len({*first, *other, *longer}) == 3


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.integers(0, 3), st.sampled_from([1, 10, 100, BLOCK_BYTES]))
def test_blocks_hold_all_documents_once_in_order(texts: list[str], skipped: int, size: int) -> None:
    for kind in (pa.string(), pa.large_string()):
        array = pa.array([None, *texts], kind)[1:][skipped:]
        chunked = pa.chunked_array([array, array[:1]], kind)
        wanted = [text.encode() for text in (texts[skipped:] + texts[skipped:][:1])]
        found = list(blocks(chunked, size))
        assert [bytes(each.data[a:b]) for each in found for a, b in pairwise(each.starts)] == wanted
        assert all(len(each.data) <= size or len(each.starts) == 2 for each in found)
        assert byte_lengths(array).tolist() == [len(text.encode()) for text in texts[skipped:]]


def test_a_null_is_a_document_without_tokens() -> None:
    array = pa.array(["a b", None, "c"])
    [block] = blocks(array)
    assert shingles(block, 5).counts.tolist() == [1, 0, 1]
    assert byte_lengths(array).tolist() == [3, 0, 1]


@pytest.mark.parametrize(
    ("first", "second", "shared", "all_of_them"),
    [
        ("a b c d e f g h", "a b c d e f g h", 4, 4),
        ("a b c d e f g h", "a b c d e f g x", 3, 5),
        ("a b c d e f g h", "x b c d e f g h", 3, 5),
        ("a b c d e f g h", "a b c d e f", 2, 4),
        ("a a a a a a a a", "A-A-A-A-A", 1, 1),
        ("a b", "a b", 1, 1),
        ("a b", "a b c", 0, 2),
    ],
)
def test_the_similarity_is_that_of_sets(first: str, second: str, shared: int, all_of_them: int) -> None:
    found = shingles_of(pa.array([first, second]), 5)
    assert jaccard(found, np.array([0, 1, 0]), np.array([1, 0, 0])).tolist() == [*[shared / all_of_them] * 2, 1.0]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(alphabet="ab ", min_size=1, max_size=60).filter(tokens), min_size=1, max_size=8))
def test_the_similarity_is_exact(texts: list[str]) -> None:
    found = shingles_of(pa.array(texts), 2)
    first, second = (side.ravel() for side in np.indices((len(texts), len(texts))))
    sets = [set(model(text, 2)) for text in texts]
    expected = [len(a & b) / len(a | b) for a in sets for b in sets]
    assert jaccard(found, first, second).tolist() == expected
