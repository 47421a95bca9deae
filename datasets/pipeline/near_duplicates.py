"""The step that leaves out near-duplicates: it has to see all rows before it decides about one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.index import Clusters, NearIndex
from datasets.pipeline.rows import CONTENT, Outcome, Reason, Rejection, excerpt
from datasets.pipeline.spool import Spooled


@dataclass(frozen=True)
class DropNearDuplicates:
    """Keeps the longest row of each cluster, the first of several, and says of the others which one that is."""

    choices: NearDedup
    sampled: Callable[[Clusters, Spooled], None] = lambda clusters, everything: None
    """Gets all that was found, once."""
    each_band: Callable[[float], None] = lambda share: None
    """Hears how much of the search is done, once all rows have been seen; whoever raises here ends it."""

    name = "dedup_near"

    def begin(self, everything: Spooled) -> Callable[[pa.Table], Outcome]:
        index = NearIndex(self.choices)
        for rows in everything.batches():
            index.add(texts_of(rows))
        clusters = index.clusters(lambda numbers: texts_of(everything.take(numbers.tolist())), each_band=self.each_band)
        self.sampled(clusters, everything)
        return _Left(clusters, everything).apply


class _Left:
    """Goes over the rows once more, in the same batches."""

    def __init__(self, clusters: Clusters, everything: Spooled) -> None:
        self._clusters, self._everything = clusters, everything
        self._start = 0

    def apply(self, rows: pa.Table) -> Outcome:
        start, end = self._start, self._start + rows.num_rows
        self._start = end
        first, last = np.searchsorted(self._clusters.member, (start, end))
        if first == last:
            return Outcome(rows)
        places = self._clusters.member[first:last] - start
        kept = _places(self._everything.take(self._clusters.kept[first:last].tolist()))
        keep = np.ones(rows.num_rows, np.bool_)
        keep[places] = False
        out = rows.take(pa.array(places)).to_pylist()
        similar = self._clusters.similarity[first:last].tolist()
        rejections = [_rejection(*each) for each in zip(out, kept, similar, strict=True)]
        return Outcome(rows.filter(pa.array(keep)), rejections)


def texts_of(rows: pa.Table) -> pa.ChunkedArray:
    """What a row says, in one piece."""
    return pc.binary_join_element_wise(*(rows[name] for name in CONTENT), "\n", null_handling="skip")


def _places(rows: pa.Table) -> Sequence[str]:
    places = zip(rows["source"].to_pylist(), rows["line"].to_pylist(), strict=True)
    return [f"line {line}" if source is None else f"{source}, line {line}" for source, line in places]


def _rejection(row: dict[str, Any], kept: str, similarity: float) -> Rejection:
    shown = next((row[name] for name in CONTENT if row[name] is not None), "")
    seen = excerpt(f"{similarity:.2f}, in the cluster of {kept}: {shown}")
    return Rejection(row["line"], DropNearDuplicates.name, Reason.NEAR_DUPLICATE, seen, None, row["source"])
