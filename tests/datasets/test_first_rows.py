"""The first row with each digest: what a dict would say, whatever the batches, and however many want one slot."""

from __future__ import annotations

import random

import numpy as np
import pytest

from datasets.pipeline import first_rows
from datasets.pipeline.first_rows import FirstRows


def expected(digests: list[tuple[int, int]]) -> list[int]:
    first: dict[tuple[int, int], int] = {}
    return [first.setdefault(digest, number) for number, digest in enumerate(digests)]


def found(digests: list[tuple[int, int]], batch: int) -> list[int]:
    rows = FirstRows()
    halves = np.array(digests, np.uint64).reshape(-1, 2)
    return [each for begin in range(0, len(halves), batch) for each in rows.of(halves[begin : begin + batch]).tolist()]


@pytest.mark.parametrize("batch", [1, 7, 1_000, 50_000])
@pytest.mark.parametrize("different", [3, 2_000, 20_000])
def test_it_says_what_a_dict_says(batch: int, different: int) -> None:
    chance = random.Random(different + batch)
    ones = [(chance.getrandbits(64), chance.getrandbits(64)) for _ in range(different)]
    digests = chance.choices(ones, k=20_000 if batch > 1 else 2_000)
    assert found(digests, batch) == expected(digests)


def test_halves_that_are_the_same_do_not_make_digests_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_rows, "SMALLEST", 4)
    digests = [(high, low) for low in range(40) for high in (5, 6)] * 2  # all of them want one of two slots
    assert found(digests, 23) == expected(digests) == [*range(80), *range(80)]


def test_no_rows_are_no_rows() -> None:
    rows = FirstRows()
    assert rows.of(np.zeros((0, 2), np.uint64)).tolist() == []
    assert rows.of(np.zeros((1, 2), np.uint64)).tolist() == [0]


def test_what_is_kept_of_a_row_is_what_it_says() -> None:
    rows, chance = FirstRows(), np.random.default_rng(1)
    for _ in range(100):
        rows.of(chance.integers(0, 2**64, (1_000, 2), np.uint64))
    assert (rows._high[: rows._rows].nbytes, rows._low[: rows._rows].nbytes) == (800_000, 800_000)
    assert 8 * 100_000 <= rows._slots.nbytes <= 16 * 100_000 * 1.1
