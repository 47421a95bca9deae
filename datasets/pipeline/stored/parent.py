"""The version that rows are added to, and the ones that it was made from in the same way.

Each has the files of the rows that it added, in a folder of its own; none of them is written again. Of rows that are much
alike, or the same, those of the parent stay.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.pipeline.near.shingles import Ints
from datasets.pipeline.progress import sorted_counts
from datasets.pipeline.rows import EXAMPLES, Outcome
from datasets.pipeline.steps import SPLITS, ExactDedup, duplicates
from datasets.pipeline.stored.digests import digest_halves
from datasets.pipeline.stored.index import Index
from datasets.pipeline.stored.pages import COLUMNS, take

SPLIT_NAMES = tuple(name.upper() for name in SPLITS)
COUNTS = ("rows_in", "rows_kept", "rows_dropped", "rows_changed")


@dataclass(frozen=True)
class Segment:
    """What one version added."""

    number: int
    """The version's, as people know it."""
    prefix: str
    """Where its files lie in storage."""
    folder: Path
    """Where they lie here."""

    @cached_property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return manifest

    @cached_property
    def index(self) -> Index:
        return Index(self.folder)

    def rows(self, split: int, places: Ints) -> pa.Table:
        """Rows of one of its shards by their places there, which ascend: what they say, and where they stood."""
        own = [entry for entry in self.manifest["files"] if "key" not in entry]
        name = next(entry["name"] for entry in own if entry.get("drawn") == SPLIT_NAMES[split])
        pages = self.index.pages[self.index.pages["split"] == SPLITS.index(name.partition("-")[0])]
        if len(pages):
            return take(self.folder / name, pages, places)
        return _of_row_groups(self.folder / name, places)


def _of_row_groups(path: Path, places: Ints) -> pa.Table:
    """The same of a version that an earlier release made."""
    with pq.ParquetFile(path, memory_map=True) as shard:
        ends = np.cumsum([shard.metadata.row_group(each).num_rows for each in range(shard.num_row_groups)])
        groups = np.searchsorted(ends, places, "right")
        tables = []
        for group in np.unique(groups):
            table = shard.read_row_group(int(group), columns=list(COLUMNS), use_threads=False)
            start = int(ends[group - 1]) if group else 0
            tables.append(table.take(pa.array(places[groups == group] - start)))
    return pa.concat_tables(tables)


@dataclass(frozen=True)
class Parent:
    """Segments from the first version to the parent itself."""

    segments: Sequence[Segment]

    @classmethod
    def of(cls, orders: Sequence[Mapping[str, Any]] | None) -> Parent | None:
        if not orders:
            return None
        return cls([Segment(int(one["number"]), str(one["prefix"]), Path(one["folder"])) for one in orders])

    @property
    def manifest(self) -> dict[str, Any]:
        return self.segments[-1].manifest

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def files(self) -> list[dict[str, Any]]:
        """Those of all segments as the parent's manifest names them, each with its key in storage."""
        here = self.segments[-1].prefix
        return [{"key": f"{here}/{entry['name']}", **entry} for entry in self.manifest["files"]]

    def moved(self, files: Sequence[dict[str, Any]]) -> int:
        """How many of its rows are in another split in a version with these files."""
        before = {entry["key"]: entry["split"] for entry in self.files}
        return sum(entry["rows"] for entry in files if before.get(entry.get("key"), entry["split"]) != entry["split"])

    def with_added(self, added: dict[str, Any]) -> dict[str, Any]:
        """The counts of all rows, of those that were added."""
        before = self.manifest
        skipped = Counter(before["skipped"]) + Counter(added["skipped"])
        return {
            **{name: before[name] + added[name] for name in ("rows_in", "rows_kept", "rejected")},
            "skipped": dict(skipped),
            "pii_findings": _sum(before["pii_findings"], added["pii_findings"]),
        }

    def with_step(self, step: dict[str, Any]) -> dict[str, Any]:
        """A step's report over all rows, of its report over those that were added."""
        before = next(one for one in self.manifest["steps"] if one["name"] == step["name"])
        return {
            **step,
            **{count: before[count] + step[count] for count in COUNTS},
            "reasons": _sum(before["reasons"], step["reasons"]),
            "examples": [*before["examples"], *step["examples"]][:EXAMPLES],
        }


def _sum(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    both: Counter[str] = Counter()
    for each in (*first, *second):
        both[each["key"]] += each["count"]
    return [{"key": key, "count": count} for key, count in sorted_counts(both)]


@dataclass(frozen=True)
class DropKnown:
    """Leaves out rows whose content the parent's uploads had, and says where; then those that their own upload had before."""

    parent: Parent

    name = ExactDedup.name

    def begin(self) -> Callable[[pa.Table], Outcome]:
        among_themselves = ExactDedup().begin()

        def apply(rows: pa.Table) -> Outcome:
            known = self._known(rows)
            kept = rows.filter(pa.array([number not in known for number in range(rows.num_rows)])) if known else rows
            outcome = among_themselves(kept)
            rejections = duplicates(rows, [*known], [*known.values()])
            return Outcome(outcome.kept, [*rejections, *outcome.rejections])

        return apply

    def _known(self, rows: pa.Table) -> dict[int, str]:
        """Where a row's content stood before, by the row's number."""
        halves: npt.NDArray = digest_halves(rows)
        known: dict[int, str] = {}
        for segment in self.parent.segments:
            positions = segment.index.find(halves)
            for number in np.flatnonzero(positions >= 0).tolist():
                known.setdefault(number, place_in(segment, *segment.index.place_of(positions[number])))
        return known


def place_in(segment: Segment, source: str | None, line: int) -> str:
    place = f"line {line}" if source is None else f"{source}, line {line}"
    return f"{place} of version {segment.number}"
