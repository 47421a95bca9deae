"""Near-duplicates are found, nothing else is, and the work grows with the documents whatever they are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.index import Clusters, NearIndex
from datasets.pipeline.near.search import MAX_COMPARED_BYTES, MAX_FAILURES, Search
from datasets.pipeline.near.shingles import Ints
from tests.datasets.test_near_shingles import model

WORDS = NearDedup(shingle_tokens=1)  # documents are sets of words


def searched(
    texts: list[str] | pa.Array,
    choices: NearDedup | None = None,
    quality: list[float] | None = None,
    cuts: Iterable[int] = (),
) -> Clusters:
    array = pa.array(texts, pa.string())
    index = NearIndex(choices or NearDedup())
    bounds = [0, *sorted(cuts), len(array)]
    for begin, end in pairwise(bounds):
        index.add(array[begin:end])
    return index.clusters(taking(array), None if quality is None else np.array(quality))


def taking(array: pa.Array) -> Callable[[Ints], pa.Array]:
    def texts_of(rows: Ints) -> pa.Array:
        assert (np.diff(rows) > 0).all(), "each once, and in order"
        return array.take(pa.array(rows))

    return texts_of


def found(clusters: Clusters) -> list[tuple[int, int, float]]:
    triples = zip(clusters.member.tolist(), clusters.kept.tolist(), clusters.similarity.tolist(), strict=True)
    return [(member, kept, round(similarity, 6)) for member, kept, similarity in triples]


def together(clusters: Clusters, rows: int) -> np.ndarray:
    """Each row's cluster."""
    names = np.arange(rows)
    names[clusters.member] = clusters.kept
    return names


def words(*numbers: int) -> str:
    return " ".join(f"w{number}" for number in numbers)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a b c d e f g h", "A.b-c(d)e\nf\tg;  h", "x"], [(0, 1, 1.0)]),  # the longer one is kept
        (["a b c d e f g h", "a,b,c,d,e,f,g,h"], [(1, 0, 1.0)]),  # the first of two as long
        (["a b", "c", "a b", "b a", "c"], [(2, 0, 1.0), (4, 1, 1.0)]),
        (["", "", " ", ".", "!"], []),  # nothing is not the same as nothing
        (["", "a b c", "", "a b c"], [(3, 1, 1.0)]),
        (["a b c d", "a b c e"], []),
        ([], []),
        (["a b c d e f"], []),
    ],
)
def test_documents_with_the_same_shingles(texts: list[str], expected: list[tuple[int, int, float]]) -> None:
    assert found(searched(texts)) == expected


def test_the_threshold_is_reached_by_what_equals_it() -> None:
    seven_of_ten, six_of_nine = words(*range(7)), words(*range(6))
    assert found(searched([seven_of_ten, words(*range(10))], WORDS)) == [(0, 1, 0.7)]
    assert found(searched([six_of_nine, words(*range(9))], WORDS)) == []
    lower = NearDedup(threshold=2 / 3, shingle_tokens=1)
    assert found(searched([six_of_nine, words(*range(9))], lower)) == [(0, 1, 0.666667)]


def test_the_best_is_kept_by_quality_then_length_then_order() -> None:
    texts = [words(*range(20)), words(*range(22)), words(*range(21)), words(*range(22)), "else"]
    assert found(searched(texts, WORDS))[0][1] == 1
    for quality, kept in (([0, 0, 1, 0, 9], 2), ([1, 0, 1, 0, 9], 2), ([1, 0, 0, 0, 9], 0), ([0, 1, 0, 1, 0], 1)):
        clusters = searched(texts, WORDS, quality=[float(one) for one in quality])
        assert set(clusters.kept.tolist()) == {kept}
        assert clusters.member.tolist() == [row for row in range(4) if row != kept]
    with pytest.raises(ValueError, match="5 documents, and the quality of 2"):
        searched(texts, WORDS, quality=[0.0, 1.0])


def test_a_chain_is_one_cluster_and_says_what_connects_it() -> None:
    chain = [words(*range(begin, begin + 20)) for begin in (10, 13, 16)]  # 17 of 23, and 14 of 26 from end to end
    assert found(searched(chain, WORDS)) == [(1, 0, 0.73913), (2, 0, 0.73913)]
    assert found(searched([chain[0], chain[2]], WORDS)) == []


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_what_is_joined_is_connected_by_similar_pairs_and_equal_sets_are_joined(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 3), "shingle_tokens")
    threshold = data.draw(st.sampled_from([0.4, 0.5, 0.7, 0.9, 1.0]), "threshold")
    texts = data.draw(st.lists(st.text(alphabet="abcD é", max_size=30), max_size=14), "texts")
    cuts = data.draw(st.lists(st.integers(0, len(texts)), max_size=4), "cuts")
    choices = NearDedup(threshold, shingle_tokens=size)
    clusters = searched(texts, choices)
    assert found(clusters) == found(searched(texts, choices, cuts=cuts))
    assert clusters.verified <= len(texts) * (len(texts) - 1) / 2 * choices.bands
    sets = [set(model(text, size)) for text in texts]
    names = together(clusters, len(texts))
    components = np.arange(len(texts))
    exact: dict[int, list[float]] = {row: [] for row in range(len(texts))}
    for first, second in combinations(range(len(texts)), 2):
        if sets[first] | sets[second]:
            similarity = len(sets[first] & sets[second]) / len(sets[first] | sets[second])
            if similarity >= threshold:
                components[components == components[second]] = components[first]
                exact[first].append(round(similarity, 6))
                exact[second].append(round(similarity, 6))
            assert similarity < 1 or names[first] == names[second]
    for member, kept, similarity in found(clusters):
        assert components[member] == components[kept]
        assert similarity in exact[member]
        assert len(texts[kept].encode()) >= len(texts[member].encode())
        assert kept not in clusters.member


def mutants(seed: int, families: int, size: int) -> list[str]:
    """Documents of which each family's are one with more and more of its words replaced."""
    chance = random.Random(seed)
    texts = []
    for _ in range(families):
        source = [chance.randrange(10**9) for _ in range(chance.choice((12, 40, 150, 400)))]
        for turn in range(size):
            copy = [chance.randrange(10**9) if chance.random() < 0.012 * turn else word for word in source]
            texts.append(words(*copy))
    chance.shuffle(texts)
    return texts


def test_of_a_thousand_documents_nearly_all_similar_pairs_are_joined_and_no_others() -> None:
    texts = mutants(seed=7, families=80, size=7)
    clusters = searched(texts)
    names = together(clusters, len(texts))
    sets = [frozenset(model(text, 5)) for text in texts]
    pairs = similar = missed = 0
    names_of_components = np.arange(len(texts))
    for first, second in combinations(range(len(texts)), 2):
        common = len(sets[first] & sets[second])
        pairs += 1
        if common and common / (len(sets[first]) + len(sets[second]) - common) >= 0.7:
            similar += 1
            missed += names[first] != names[second]
            names_of_components[names_of_components == names_of_components[second]] = names_of_components[first]
    assert pairs == 156_520
    assert similar > 500
    assert missed <= 0.01 * similar
    assert all(names_of_components[member] == names_of_components[kept] for member, kept, _ in found(clusters))
    assert clusters.verified < 3 * len(texts)


@pytest.mark.parametrize("size", [10, 12, 20, 40, 90, 250, 600, 3000])
@pytest.mark.parametrize("part", ["replaced", "cut off"])
def test_pairs_at_the_threshold_are_found_whatever_their_length(size: int, part: str) -> None:
    """Signatures take more rounds for shorter documents: it must not matter that one of the two is shorter."""
    count = 200
    texts = []
    for pair in range(count):
        begin = pair * 10 * size
        kept = -(-14 * size // 17) if part == "replaced" else -(-7 * size // 10)  # J = k / (2n - k), or k / n
        other = range(begin + 2 * size, begin + 3 * size - kept) if part == "replaced" else ()
        texts += [words(*range(begin, begin + size)), words(*range(begin, begin + kept), *other)]
    clusters = searched(texts, WORDS)
    assert all(abs(member - kept) == 1 and max(member, kept) % 2 for member, kept, _ in found(clusters))
    assert len(clusters.member) >= 0.97 * count
    assert (clusters.similarity >= 0.699999).all() and (clusters.similarity < 0.9).all()


def test_the_bounds_of_batches_do_not_matter() -> None:
    texts = mutants(seed=3, families=60, size=5)
    expected = found(searched(texts))
    assert len(expected) > 150
    chance = random.Random(5)
    for count in (1, 2, 10, 100):
        assert found(searched(texts, cuts=chance.sample(range(len(texts)), count))) == expected
    index = NearIndex(NearDedup())
    array = pa.array(texts, pa.large_string())
    index.add(pa.chunked_array([array[:7], array[7:7], array[7:]]))
    assert found(index.clusters(taking(array))) == expected
    assert found(index.clusters(taking(array))) == expected, "and it may be asked twice"


def test_an_index_costs_205_bytes_a_document() -> None:
    index = NearIndex(NearDedup())
    index.add(pa.array(mutants(seed=1, families=20, size=5)))
    assert index.rows == 100
    assert index.size_bytes == 100 * (42 * 4 + 32 + 5)


@pytest.mark.parametrize("rows", [4_000, 20_000])
def test_a_cluster_of_copies_costs_a_few_comparisons_a_document(rows: int) -> None:
    base = [f"w{number}" for number in range(60)]
    texts = [" ".join([*base[: row % 60], f"x{row}", *base[row % 60 + 1 :]]) for row in range(rows)]  # J is .69 to .84
    clusters = searched(texts)
    assert len(clusters.member) == rows - 1
    assert clusters.verified < 3 * rows


class Recorder:
    """Texts without a word in common, and how much of them was asked for at a time."""

    def __init__(self, rows: int, size: int) -> None:
        self.texts = pa.array([" ".join(f"t{row}x{place}" for place in range(size)) for row in range(rows)])
        self.sizes = np.diff(np.frombuffer(self.texts.buffers()[1], np.int32)).astype(np.uint32)
        self.most_bytes = 0

    def __call__(self, rows: Ints) -> pa.Array:
        self.most_bytes = max(self.most_bytes, int(self.sizes[rows].sum()))
        return self.texts.take(pa.array(rows))


def test_documents_that_share_one_key_by_chance_are_compared_once_each() -> None:
    rows = 20_000
    texts = Recorder(rows, 24)
    search = Search(NearDedup(), texts.sizes, np.zeros((rows, 4), np.uint64), texts)
    own = np.arange(rows, dtype=np.uint32)
    for band in range(42):
        search.look_through(band, lambda band: own * 0 if band == 5 else own, np.arange(rows))
    assert search.verified == rows - 1
    assert len(search.forest.clusters()[0]) == 0
    assert 0 < texts.most_bytes <= MAX_COMPARED_BYTES < texts.sizes.sum()


def test_documents_that_share_all_keys_and_nothing_else_are_given_up() -> None:
    rows = 600
    texts = Recorder(rows, 40)
    search = Search(NearDedup(), texts.sizes, np.zeros((rows, 4), np.uint64), texts)
    for band in range(42):
        search.look_through(band, lambda _: np.zeros(rows, np.uint32), np.arange(rows))
    assert search.verified <= MAX_FAILURES * rows
    assert len(search.forest.clusters()[0]) == 0


def test_a_pair_that_is_too_long_to_be_compared_beside_others_is_compared_alone() -> None:
    text = words(*range(400_000))
    assert len(text) * 2 > MAX_COMPARED_BYTES * 1.2
    other = NearDedup(permutations=64, threshold=0.9)
    assert found(searched(["a", text, "b", text + " x", "a"], other)) == [(1, 3, 0.999997), (4, 0, 1.0)]


@pytest.mark.parametrize(
    ("choices", "bands", "rows"),
    [
        (NearDedup(), 42, 6),
        (NearDedup(permutations=128), 32, 4),
        (NearDedup(threshold=0.8), 32, 8),
        (NearDedup(threshold=0.5), 50, 3),
        (NearDedup(threshold=0.3), 50, 2),
        (NearDedup(threshold=1.0), 1, 256),
    ],
)
def test_bands_follow_from_the_threshold(choices: NearDedup, bands: int, rows: int) -> None:
    assert (choices.bands, choices.rows) == (bands, rows)
    assert bands * rows <= choices.permutations
    assert 1 - (1 - choices.threshold**rows) ** bands >= 0.99


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("threshold", 0.29),
        ("threshold", 1.01),
        ("threshold", float("nan")),
        ("permutations", 63),
        ("permutations", 1025),
        ("shingle_tokens", 0),
        ("shingle_tokens", 33),
    ],
)
def test_choices_that_cannot_be_followed_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be between"):
        NearDedup(**{name: value})
