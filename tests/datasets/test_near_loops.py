"""Compiled loops compute what passes of numpy do, bit for bit, whatever the bytes are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets.pipeline.compiled import digest_of_sources
from datasets.pipeline.near.arithmetic import PASSES, PAYS_FROM_BYTES, Arithmetic, arithmetic_for, loops
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.index import Clusters, NearIndex
from datasets.pipeline.near.shingles import Block, Shingles
from datasets.pipeline.near.sketch import Sketcher
from platform_site.engines.place import ROOT
from tests.datasets.test_near_clusters import mutants, taking

FEW_BYTES = b"aZ_09@[`{\x00\x7f\x80\xff \n"
LETTERS = st.sampled_from([7, 8, 9, 16, 17, 63, 64, 65, 66, 200]).map(lambda size: b"Ab\xc3\xa9"[size % 4 :] * size)
DOCUMENTS = st.lists(
    st.binary(max_size=60)
    | st.lists(st.sampled_from(list(FEW_BYTES)), max_size=60).map(bytes)
    | st.lists(LETTERS | st.just(b" x"), max_size=4).map(b"-".join),
    max_size=12,
)
SOME_CHOICES = [
    NearDedup(),
    NearDedup(threshold=0.8),
    NearDedup(threshold=0.3, permutations=64, shingle_tokens=1),
    NearDedup(threshold=1.0, permutations=1024, shingle_tokens=32),
    NearDedup(threshold=0.5, permutations=1000, shingle_tokens=2),
]


@pytest.fixture(scope="session")
def compiled() -> Arithmetic:
    return loops()


def block_of(documents: list[bytes]) -> Block:
    starts = np.array([0, *accumulate(map(len, documents))], np.int64)
    return Block(np.frombuffer(b"".join(documents), np.uint8), starts)


def assert_equal(found: Shingles, expected: Shingles) -> None:
    assert found.starts.tolist() == expected.starts.tolist()
    assert found.hashes.tolist() == expected.hashes.tolist()
    assert (found.hashes.dtype, found.starts.dtype) == (np.uint64, np.int64)


@settings(deadline=None, max_examples=150)
@given(DOCUMENTS, st.integers(1, 32))
def test_shingles(compiled: Arithmetic, documents: list[bytes], tokens: int) -> None:
    block = block_of(documents)
    assert_equal(compiled.shingles(block, tokens), PASSES.shingles(block, tokens))


@pytest.mark.parametrize("before", [0, 1, 7, 8])
def test_each_byte_belongs_to_a_token_or_does_not(compiled: Arithmetic, before: int) -> None:
    documents = [b"." * before, *(bytes([97, byte, 98]) for byte in range(256)), bytes(range(256)), b""]
    for tokens in (1, 2, 5):
        block = block_of(documents)
        assert_equal(compiled.shingles(block, tokens), PASSES.shingles(block, tokens))


@pytest.mark.parametrize("size", range(70))
def test_a_token_that_ends_where_the_bytes_end(compiled: Arithmetic, size: int) -> None:
    for documents in ([b"x" * size], [b"b" * 3, b"x" * size], [b"x" * size, b"b" * 3, b"x" * size], [b" x" * size]):
        block = block_of(documents)
        assert_equal(compiled.shingles(block, 2), PASSES.shingles(block, 2))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 3) | st.integers(0, 400) | st.sampled_from([1007, 1008, 1009, 5000]), max_size=8),
    st.sampled_from(SOME_CHOICES),
    st.integers(1, 2**32),
)
def test_sketches(compiled: Arithmetic, counts: list[int], choices: NearDedup, seed: int) -> None:
    """Also of hashes that no text was found for, of which most slots stay empty."""
    starts = np.array([0, *accumulate(counts)], np.int64)
    chance = np.random.default_rng(seed)
    hashes = chance.integers(0, 2**64, starts[-1], np.uint64)
    hashes[chance.random(len(hashes)) < 0.5] = chance.choice(np.array([0, 1, 2**63, 2**64 - 1], np.uint64))
    sketcher = Sketcher(choices)
    keys, bits = compiled.sketches(sketcher, Shingles(hashes, starts))
    expected_keys, expected_bits = PASSES.sketches(sketcher, Shingles(hashes, starts))
    present = np.flatnonzero(counts)  # those of a document without shingles mean nothing
    assert (keys.shape, keys.dtype) == (expected_keys.shape, expected_keys.dtype)
    assert (bits.shape, bits.dtype) == (expected_bits.shape, expected_bits.dtype)
    assert keys[present].tolist() == expected_keys[present].tolist()
    assert bits[present].tolist() == expected_bits[present].tolist()


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.lists(st.integers(0, 40) | st.integers(0, 2**64 - 1), min_size=1, max_size=60), min_size=1, max_size=6)
)
def test_similarities(compiled: Arithmetic, documents: list[list[int]]) -> None:
    """Small numbers differ in bits alone that are not compared; zero is a hash like any other."""
    hashes = np.array([each for document in documents for each in document], np.uint64)
    for shift in (np.uint64(0), np.uint64(13), np.uint64(58)):
        shingles = Shingles(hashes << shift, np.array([0, *accumulate(map(len, documents))], np.int64))
        first, second = (side.ravel() for side in np.indices((len(documents), len(documents))))
        found = compiled.jaccard(shingles, first, second)
        assert found.tolist() == PASSES.jaccard(shingles, first, second).tolist()


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.integers(0, 2**32 - 1) | st.integers(0, 30) | st.integers(0, 2**20 - 1).map(lambda each: each << 12),
        max_size=60,
    )
)
def test_buckets(compiled: Arithmetic, keys: list[int]) -> None:
    """Keys that differ in the last bits alone are not the same, nor are rows their places."""
    array, rows = np.array(keys, np.uint32), 3 * np.arange(len(keys)) + 5
    found, expected = compiled.sharing(array, rows), PASSES.sharing(array, rows)
    assert [each.tolist() for each in found] == [each.tolist() for each in expected]
    assert len(expected[0]) == sum(count for count in Counter(keys).values() if count > 1)


def test_no_pairs_have_no_similarities(compiled: Arithmetic) -> None:
    none = np.zeros(0, np.int64)
    shingles = Shingles(np.zeros(1, np.uint64), np.array([0, 1]))
    assert compiled.jaccard(shingles, none, none).tolist() == []


def clusters_of(arithmetic: Arithmetic, texts: pa.Array, choices: NearDedup) -> Clusters:
    index = NearIndex(choices, arithmetic)
    for begin in range(0, len(texts), 100):
        index.add(texts[begin : begin + 100])
    return index.clusters(taking(texts))


@pytest.mark.parametrize("choices", [NearDedup(), NearDedup(threshold=0.5, permutations=128, shingle_tokens=3)])
def test_clusters(compiled: Arithmetic, choices: NearDedup) -> None:
    texts = pa.array([*mutants(seed=11, families=60, size=6), "", "…", "日本語" * 50, "a b", "a b", None], pa.string())
    found, expected = (clusters_of(each, texts, choices) for each in (compiled, PASSES))
    assert len(found.member) > 150
    assert found.member.tolist() == expected.member.tolist()
    assert found.kept.tolist() == expected.kept.tolist()
    assert found.similarity.tolist() == expected.similarity.tolist()
    assert found.verified == expected.verified


def test_a_run_is_compiled_where_its_size_pays_for_it(compiled: Arithmetic) -> None:
    sizes = (0, PAYS_FROM_BYTES - 1, PAYS_FROM_BYTES, PAYS_FROM_BYTES + 1)
    assert [arithmetic_for(size) for size in sizes] == [PASSES, PASSES, compiled, compiled]


def test_near_copies_take_a_number_of_comparisons_that_grows_as_they_do(compiled: Arithmetic) -> None:
    """A hundred thousand of which each has another word of sixty: J is .69 to .84."""
    base = [f"w{number}" for number in range(60)]
    compared = {}
    for rows in (12_500, 25_000, 100_000):
        texts = pa.array([" ".join([*base[: row % 60], f"x{row}", *base[row % 60 + 1 :]]) for row in range(rows)])
        index = NearIndex(NearDedup(), compiled)
        index.add(texts)
        clusters = index.clusters(taking(texts))
        assert len(clusters.member) == rows - 1
        compared[rows] = clusters.verified
    assert compared[100_000] <= 1.3 * 100_000
    assert compared[100_000] <= 8 * compared[12_500]
    assert compared[25_000] <= 2 * compared[12_500]


FIRST_RUN = """
import sys
import datasets.pipeline.near_duplicates
assert "numba" not in sys.modules, "a small upload does not wait for it"
from datasets.pipeline.near.arithmetic import PASSES, loops
from datasets.pipeline.near.shingles import Block
import numpy as np
block = Block(np.frombuffer(b"a b c a b c", np.uint8), np.array([0, 11]))
print(loops().shingles(block, 3).hashes.tolist() == PASSES.shingles(block, 3).hashes.tolist())
"""


def test_two_processes_at_once_compile_for_an_empty_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FIRST_RUN]
    env = {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path), "PATH": ""}
    for _ in range(2):  # the second time it is loaded
        both = [subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [each.communicate(timeout=120)[0] for each in both] == ["True\n", "True\n"]
        assert [each.returncode for each in both] == [0, 0]
    assert len(list(tmp_path.rglob("*.nbc"))) == 7


def test_what_was_compiled_of_other_sources_is_not_taken(tmp_path: Path) -> None:
    """Whichever file of them is changed, added, or renamed."""
    pipeline, digests = tmp_path / "pipeline", set()

    def write(name: str, text: str) -> None:
        path = pipeline / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        digests.add(digest_of_sources(pipeline))

    for name in (
        "compiled.py",
        "reading/lines.py",
        "rows.py",
        "bias/loops.py",
        "near/sketch.py",
        "reading/scan/vectors.py",
    ):
        write(name, "ONE = 1")
    assert len(digests) == 6
    for name in ("reading/lines.py", "near/sketch.py"):
        write(name, "ONE = 2")
    (pipeline / "reading" / "scan" / "vectors.py").rename(pipeline / "reading" / "scan" / "widths.py")
    digests.add(digest_of_sources(pipeline))
    assert len(digests) == 9
    write("pii/other.py", "no loop")
    assert len(digests) == 9


@pytest.mark.faults
@pytest.mark.slow
def test_no_index_is_out_of_bounds(tmp_path: Path) -> None:
    """Compiled once more, with each index checked, the tests above pass: neither is read nor written beside an array."""
    env = {**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    chosen = "shingles or sketches or buckets or similarities or clusters or token"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, "-k", chosen]
    ran = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout
