"""The step that leaves out near-duplicates: it has to see all rows before it decides about one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.pipeline.near.arithmetic import arithmetic_for
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.index import Clusters, NearIndex
from datasets.pipeline.near.shingles import Ints
from datasets.pipeline.near_known import NOTHING, Known, KnownNear
from datasets.pipeline.rows import CONTENT, Outcome, Reason, Rejection, excerpt, texts
from datasets.pipeline.spool import Spooled


@dataclass(frozen=True)
class DropNearDuplicates:
    """Keeps the longest row of each cluster, the first of several, and says of the others which one that is.

    Of a cluster with a near-duplicate of a `known` row none is kept.
    """

    choices: NearDedup
    known: KnownNear | None = None
    sampled: Callable[[Clusters, Spooled], None] = lambda clusters, everything: None
    """Gets the clusters of which a row is kept, once."""
    each_band: Callable[[float], None] = lambda share: None
    """Hears how much of the search is done, once all rows have been seen; whoever raises here ends it."""

    name = "dedup_near"

    def begin(
        self, everything: Spooled, keep: Callable[[NearIndex, Ints], None] = lambda *_: None
    ) -> Callable[[pa.Table], Outcome]:
        """`keep` is given the index, and the rows that are left out."""
        index = NearIndex(self.choices, arithmetic_for(everything.size_bytes), everything.num_rows)
        for rows in everything.batches():
            index.add(texts(rows))

        def texts_of(numbers: Ints) -> pa.ChunkedArray:
            return texts(everything.take(numbers.tolist(), CONTENT))

        clusters = index.clusters(texts_of, each_band=self.each_band)
        known = self.known.find(index, clusters, everything) if self.known else NOTHING
        self.sampled(clusters.without(known.member), everything)
        keep(index, np.union1d(clusters.member, known.member))
        return _Left(clusters, known, everything).apply


class _Left:
    """Goes over the rows once more, in the same batches."""

    def __init__(self, clusters: Clusters, known: Known, everything: Spooled) -> None:
        others = ~np.isin(clusters.member, known.member)
        self._member, self._kept = clusters.member[others], clusters.kept[others]
        self._similarity = clusters.similarity[others]
        self._known, self._everything = known, everything
        self._start = 0

    def apply(self, rows: pa.Table) -> Outcome:
        start, end = self._start, self._start + rows.num_rows
        self._start = end
        first, last = np.searchsorted(self._member, (start, end))
        first_known, last_known = np.searchsorted(self._known.member, (start, end))
        if first == last and first_known == last_known:
            return Outcome(rows)
        places = np.concatenate([self._member[first:last], self._known.member[first_known:last_known]]) - start
        kept = _places(self._everything.take(self._kept[first:last].tolist(), ("source", "line")))
        kept = [*kept, *self._known.place[first_known:last_known]]
        keep = np.ones(rows.num_rows, np.bool_)
        keep[places] = False
        out = rows.take(pa.array(places)).to_pylist()
        similar = [
            *self._similarity[first:last].tolist(),
            *self._known.similarity[first_known:last_known].tolist(),
        ]
        rejections = [_rejection(*each) for each in zip(out, kept, similar, strict=True)]
        return Outcome(rows.filter(pa.array(keep)), rejections)


def _places(rows: pa.Table) -> Sequence[str]:
    places = zip(rows["source"].to_pylist(), rows["line"].to_pylist(), strict=True)
    return [f"line {line}" if source is None else f"{source}, line {line}" for source, line in places]


def _rejection(row: dict[str, Any], kept: str, similarity: float) -> Rejection:
    shown = next((row[name] for name in CONTENT if row[name] is not None), "")
    seen = excerpt(f"{similarity:.2f}, in the cluster of {kept}: {shown}")
    return Rejection(row["line"], DropNearDuplicates.name, Reason.NEAR_DUPLICATE, seen, None, row["source"])
