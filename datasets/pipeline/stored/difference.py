"""What two versions have and have not in common, row by row.

Rows are the same where their digests are; only that column is read of all of them. Of rows that differ, one of each version are
one changed row where they stood in the same place: the same line (and member) of the same upload, cleaned or masked in other
ways. Of what is left, in their order, those with the same prompt and another completion.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.pipeline.near.shingles import Ints
from datasets.pipeline.steps import SPLITS
from datasets.pipeline.stored.digests import DIGEST_BYTES, digest_halves

MOST_PROMPTS = 100_000
"""Rows that differ, of both versions, whose prompts are compared; of more only places are."""


class NoDigests(Exception):
    """A version of an earlier release: its rows do not know their digests."""


@dataclass(frozen=True)
class Shard:
    """Rows of one split."""

    split: str
    rows: int
    open: Callable[[], BinaryIO]


@dataclass(frozen=True)
class Difference:
    """Counts, and the first rows of each kind, as they are stored."""

    same: int
    moved: int
    """Of those that are the same: in another split."""
    added: int
    removed: int
    changed: int
    prompts_compared: bool
    first_added: list[dict[str, Any]]
    first_removed: list[dict[str, Any]]
    first_changed: list[tuple[dict[str, Any], dict[str, Any]]]


def difference(before: Sequence[Shard], after: Sequence[Shard], examples: int) -> Difference:
    """Raises NoDigests. Memory is bounded by 100 bytes a row, and a row group of a shard."""
    old, new = _Rows(before), _Rows(after)
    removed, added, moved = _unmatched(old, new)
    same = old.count - len(removed)
    pairs_by_place = _pairs(_places(old, removed), _places(new, added))
    changed, removed, added = _paired(removed, added, pairs_by_place)
    compares = len(removed) + len(added) <= MOST_PROMPTS
    if compares and len(removed) and len(added):
        more, removed, added = _paired(removed, added, _pairs(_prompts(old, removed), _prompts(new, added)))
        changed = np.concatenate([changed, more])
        changed = changed[np.argsort(changed[:, 1], kind="stable")]
    return Difference(
        same=same,
        moved=moved,
        added=len(added),
        removed=len(removed),
        changed=len(changed),
        prompts_compared=compares,
        first_added=new.take(added[:examples]),
        first_removed=old.take(removed[:examples]),
        first_changed=list(zip(old.take(changed[:examples, 0]), new.take(changed[:examples, 1]), strict=True)),
    )


class _Rows:
    """The rows of a version, numbered through its shards."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = [shard for shard in shards if shard.rows]
        self.starts = np.cumsum([0, *(shard.rows for shard in self._shards)])
        self.count = int(self.starts[-1])
        splits = [SPLITS.index(shard.split.lower()) for shard in self._shards]
        self.splits = np.repeat(np.array(splits, np.int64), np.diff(self.starts))
        self.halves: npt.NDArray = np.zeros((self.count, 2), np.uint64)
        for start, shard in zip(self.starts, self._shards, strict=False):
            with shard.open() as file, pq.ParquetFile(file) as parquet:
                if "digest" not in parquet.schema_arrow.names:
                    raise NoDigests
                for batch in parquet.iter_batches(columns=["digest"], batch_size=1 << 16):
                    end = start + batch.num_rows
                    self.halves[start:end] = digest_halves(pa.Table.from_batches([batch]))
                    start = end

    def tables(self, numbers: Ints, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The rows of these numbers, which ascend, row group by row group."""
        for start, shard in zip(self.starts, self._shards, strict=False):
            here = numbers[(numbers >= start) & (numbers < start + shard.rows)] - start
            if not len(here):
                continue
            with shard.open() as file, pq.ParquetFile(file) as parquet:
                begin = 0
                for group in range(parquet.num_row_groups):
                    end = begin + parquet.metadata.row_group(group).num_rows
                    wanted = here[(here >= begin) & (here < end)] - begin
                    if len(wanted):
                        yield parquet.read_row_group(group, columns=columns).take(pa.array(wanted))
                    begin = end

    def take(self, numbers: Sequence[int] | Ints) -> list[dict[str, Any]]:
        """A few rows, in this order."""
        order = np.argsort(numbers, kind="stable")
        ascending = np.asarray(numbers, np.int64)[order]
        rows = [row for table in self.tables(ascending) for row in table.to_pylist()]
        back = np.argsort(order, kind="stable")
        return [rows[place] for place in back.tolist()]


def _unmatched(old: _Rows, new: _Rows) -> tuple[Ints, Ints, int]:
    """Rows of the one that the other has not, and how many of the rest are in another split."""
    halves = np.concatenate([old.halves, new.halves])
    splits = np.concatenate([old.splits, new.splits])
    is_new = np.arange(len(halves)) >= old.count
    order = np.lexsort((is_new, splits, halves[:, 1], halves[:, 0]))
    halves, splits, is_new = halves[order], splits[order], is_new[order]
    content = _runs((halves[1:] != halves[:-1]).any(axis=1), len(halves))
    within_split = _runs((halves[1:] != halves[:-1]).any(axis=1) | (splits[1:] != splits[:-1]), len(halves))
    stays = _matched(within_split, is_new)  # rows that are where they were are told apart first
    rest = np.flatnonzero(~stays)
    moved = np.zeros(len(halves), np.bool_)
    moved[rest] = _matched(content[rest], is_new[rest])
    left = ~stays & ~moved
    return (
        np.sort(order[left & ~is_new]),
        np.sort(order[left & is_new]) - old.count,
        int((moved & is_new).sum()),
    )


def _runs(begins: npt.NDArray[np.bool_], count: int) -> Ints:
    """The number of each row's run, of rows in order."""
    return np.concatenate([np.zeros(min(count, 1), np.int64), np.cumsum(begins)])


def _matched(runs: Ints, is_new: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which rows have one of the other version to themselves in their run: as many of each as there are of the fewer."""
    if not len(runs):
        return np.zeros(0, np.bool_)
    _, runs = np.unique(runs, return_inverse=True)
    count = int(runs.max()) + 1
    fewer = np.minimum(np.bincount(runs[~is_new], minlength=count), np.bincount(runs[is_new], minlength=count))
    matched = np.zeros(len(runs), np.bool_)
    for side in (is_new, ~is_new):
        rows = np.flatnonzero(side)
        mine = runs[rows]
        by_run = np.argsort(mine, kind="stable")
        rank = np.arange(len(mine)) - np.searchsorted(mine[by_run], mine[by_run])
        matched[rows[by_run]] = rank < fewer[mine[by_run]]
    return matched


def _places(rows: _Rows, numbers: Ints) -> list[object]:
    found: list[object] = []
    for table in rows.tables(numbers, ["upload", "source", "line"]):
        found += zip(*(table[name].to_pylist() for name in ("upload", "source", "line")), strict=True)
    return found


def _prompts(rows: _Rows, numbers: Ints) -> list[object]:
    """A digest of each prompt; None for rows that have none."""
    found: list[object] = []
    for table in rows.tables(numbers, ["prompt"]):
        found += [
            None if prompt is None else hashlib.sha256(prompt.encode()).digest()[:DIGEST_BYTES]
            for prompt in table["prompt"].to_pylist()
        ]
    return found


def _pairs(old: list[object], new: list[object]) -> list[tuple[int, int]]:
    """Places in both lists of what is equal and not None, each taken once, in order."""
    waiting: dict[object, list[int]] = {}
    for place, value in enumerate(old):
        if value is not None:
            waiting.setdefault(value, []).append(place)
    pairs = []
    for place, value in enumerate(new):
        if value is not None and waiting.get(value):
            pairs.append((waiting[value].pop(0), place))
    return pairs


def _paired(removed: Ints, added: Ints, pairs: list[tuple[int, int]]) -> tuple[Ints, Ints, Ints]:
    """(pairs of rows, and those that are left of both)."""
    places = np.array(pairs, np.int64).reshape(-1, 2)
    changed = np.stack([removed[places[:, 0]], added[places[:, 1]]], axis=1)
    return changed, np.delete(removed, places[:, 0]), np.delete(added, places[:, 1])
