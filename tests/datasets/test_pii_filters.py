"""What is looked at in all rows at once only leaves out what a look at each place would, too; and both ways to mask agree."""

from __future__ import annotations

import math
from collections import Counter
from ipaddress import IPv4Address
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datasets.pipeline.pii import KINDS, Finding, Findings, Kind, find, mask, numbers, phones
from datasets.pipeline.pii.checks import luhn
from datasets.pipeline.pii.findings import Hit, apart
from datasets.pipeline.pii.masking import mask_row
from datasets.pipeline.pii.networks import _NOT_GLOBAL, _groups_of_four
from datasets.pipeline.pii.placeholders import Placeholders, _may_repeat, is_random
from datasets.pipeline.pii.runs import Runs
from datasets.pipeline.pii.segments import Segment, segments
from datasets.pipeline.pii.surroundings import begins, ends, heads, may_begin, may_mention, mentions
from tests.datasets.test_pii_masking import KEY, MANY, TEXTS, VALUES

WORDS = frozenset("phone tel téléphone sms".encode().split())
NEAR = st.sampled_from(
    ["phone", "PHONE", "Tel", "télé", "téléphone", "sms", "SMS_", "s", "h", "\\", "\\n", "\\u0041", "\\x41", "+", "-", "(",
     ")", ".", "/", " ", "1", "12", "212", "555", "0123", "2a02", "2606:", "é", "_abcdefghijkl", "X" * 20, "_", "\n", "ONE", "PH"]
)  # fmt: skip
ROWS = st.lists(NEAR, max_size=30).map("".join)


def segment(*rows: str) -> Segment:
    [only] = segments(pa.array(rows, pa.string()))
    return only


def everywhere(one: Segment) -> np.ndarray:
    return np.arange(one.starts[-1])


@given(st.lists(ROWS, min_size=1, max_size=4))
@MANY
def test_where_something_begins_it_may(rows: list[str]) -> None:
    one = segment(*rows)
    may = may_begin(one, everywhere(one)).tolist()
    for position, allowed in enumerate(may):
        assert allowed or not begins(one.data, position)


def test_what_is_certain_is_left_out() -> None:
    one = segment("a1 1\\1")
    assert may_begin(one, everywhere(one)).tolist() == [True, False, False, True, False, False, True]


@given(st.lists(ROWS, min_size=1, max_size=4))
@example(["PH" + "A" * 20 + "_abcdefghijklONE "])  # PHONE, once our own word is taken out
@MANY
def test_where_a_word_stands_before_it_may(rows: list[str]) -> None:
    one, table = segment(*rows), heads(WORDS)
    may = may_mention(one, everywhere(one), table).tolist()
    for position, allowed in enumerate(may):
        assert allowed or not mentions(one.data, position, WORDS)


def test_without_a_word_before_none_may_stand_there() -> None:
    one = segment("telephony" + " " * 50 + "1", "x 1")
    may = may_mention(one, everywhere(one), heads(WORDS))
    assert (may[:4].tolist(), may[9:45].all(), may[50:].any()) == ([True] * 4, True, False)


@given(st.lists(ROWS, min_size=1, max_size=4))
@MANY
def test_numbers_of_each_shape_are_looked_at(rows: list[str]) -> None:
    runs = Runs.of(segment(*rows))
    data, starts, stops = runs.segment.data, runs.starts.tolist(), runs.ends.tolist()
    seen = {(start, end, shape.kind) for start, end, shape in (*numbers._bare(runs), *numbers._grouped(runs))}
    for shape in numbers.SHAPES:
        for first in range(len(starts) - len(shape.lengths) + 1):
            last = first + len(shape.lengths) - 1
            lengths = tuple(stops[place] - starts[place] for place in range(first, last + 1))
            between = [data[stops[place] : starts[place + 1]] for place in range(first, last)]
            fits = lengths == shape.lengths and all(len(each) == 1 and each in shape.separators for each in between)
            if fits and begins(data, starts[first]) and ends(data, stops[last]):
                assert (starts[first], stops[last], shape.kind) in seen


@given(st.lists(ROWS, min_size=1, max_size=4))
@MANY
def test_a_north_american_number_is_looked_at_wherever_one_may_begin(rows: list[str]) -> None:
    runs = Runs.of(segment(*rows))
    may = set(phones._may_be_north_american(runs).tolist())
    for start in runs.starts.tolist():
        opened = start - (runs.segment.data[start - 1 : start] == b"(")
        match = phones._NORTH_AMERICAN.match(runs.segment.data, opened)
        assert start in may or match is None or not ends(runs.segment.data, match.end())


@given(st.lists(ROWS, min_size=1, max_size=4))
@example(["2001:db8::1 22001: x2a0b: \\x412606:"])
@MANY
def test_addresses_begin_where_four_digits_do(rows: list[str]) -> None:
    runs = Runs.of(segment(*rows))
    data = runs.segment.data
    digits = b"0123456789abcdefABCDEF"
    expected = [
        colon - 4
        for colon, code in enumerate(data)
        if code == ord(":") and colon >= 4 and data[colon - 4] in b"23" and all(each in digits for each in data[colon - 4 : colon])
    ]  # fmt: skip
    assert sorted(_groups_of_four(runs).tolist()) == expected


@given(
    st.sampled_from(["0", "10", "127", "192.168", "192.0.2", "192", "100.64"]), st.integers(0, 255), st.integers(0, 255)
)
def test_addresses_that_are_left_out_at_once_are_nobodys(begin: str, first: int, second: int) -> None:
    text = ".".join([*begin.split("."), str(first), str(second), "7"][:4]).removesuffix(".")
    text += ".1" * (3 - text.count("."))
    assert not _NOT_GLOBAL.match(text.encode()) or not IPv4Address(text).is_global


@given(st.binary(min_size=1, max_size=300) | st.text("0123456789abcdef", min_size=1, max_size=80).map(str.encode))
@example(b"01234567" * 4)  # exactly three bits
@example(b"aabbccddeeffgghh")
@MANY
def test_entropy_is_shannons(value: bytes) -> None:
    seen = value[:256]
    entropy = math.log2(len(seen)) - sum(n * math.log2(n) for n in Counter(seen).values()) / len(seen)
    for least in (2.0, 3.0):
        assert is_random(value, least) == (entropy >= least)


@given(st.lists(st.tuples(st.sampled_from(b"ab\0"), st.integers(1, 10)), max_size=6))
@MANY
def test_what_stands_eight_times_in_a_row_may(parts: list[tuple[int, int]]) -> None:
    value = b"".join(bytes([code]) * count for code, count in parts)
    assert _may_repeat(value) or not any(bytes([code]) * 8 in value for code in b"ab\0")
    assert not _may_repeat(b"abababababababab")


@given(st.text("0123456789", min_size=1, max_size=19))
def test_luhn_is_the_sum_of_the_standard(digits: str) -> None:
    total = sum(sum(divmod(int(digit) * (1 + place % 2), 10)) for place, digit in enumerate(reversed(digits)))
    assert luhn(digits) == (total % 10 == 0)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.sampled_from(KINDS)), max_size=12))
@MANY
def test_of_hits_that_overlap_the_same_ones_stay_whatever_stands_beside_them(
    spans: list[tuple[int, int, Kind]],
) -> None:
    hits = [Hit(start, start + length, kind) for start, length, kind in spans]
    far = [Hit(hit.start + 100, hit.end + 100, hit.kind) for hit in hits]
    alone = apart(hits)
    assert apart(hits + far) == alone + apart(far)
    assert all(one.end <= other.start for one, other in pairwise(alone))
    assert all(hit in alone or any(hit.start < kept.end and kept.start < hit.end for kept in alone) for hit in hits)


@given(st.lists(st.one_of(st.none(), TEXTS), max_size=8), st.integers(0, 3), st.data())
@MANY
def test_a_column_is_masked_as_each_of_its_rows(rows: list[str | None], skipped: int, data: st.DataObject) -> None:
    """By bytes and in one piece, or by characters and one by one; of types, and of pieces, that a column can have."""
    kind = data.draw(st.sampled_from([pa.string(), pa.large_string()]))
    texts = pa.array(["joe@mail.ru", None, "é", *rows], kind)[skipped:]
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(texts)))
        texts = pa.chunked_array([texts[:cut], texts[cut:]])
    found = find(texts)
    result = mask(texts, found, KEY)
    result.validate(full=True)
    assert result.type == texts.type
    of, expected = Placeholders(KEY), texts.to_pylist()
    for row in found.rows().tolist():
        expected[row] = mask_row(expected[row], [each for each in found if each.row == row], of).text
    assert result.to_pylist() == expected


@pytest.mark.parametrize("value", VALUES[::7])
def test_spans_are_in_characters_whatever_stands_before(value: str) -> None:
    plain = [(each.start, each.end, each.kind) for each in find(pa.array([f"xx {value} {value}"]))]
    wide = [(each.start, each.end, each.kind) for each in find(pa.array(["", f"é𝄞 {value} {value}"]))]
    assert wide == plain


def test_a_row_that_nothing_was_found_in_keeps_its_bytes() -> None:
    texts = pa.chunked_array([["nothing"], ["joe@mail.ru"]])
    result = mask(texts, find(texts), KEY)
    assert result.chunk(0).buffers()[2].address == texts.chunk(0).buffers()[2].address
    assert mask(texts, Findings.of([]), KEY) is texts
    assert mask(texts, Findings.of([Finding(1, 0, 3, Kind.PERSON_NAME)]), KEY)[1].as_py().endswith("@mail.ru")
