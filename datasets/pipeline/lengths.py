"""How long the rows of a version are: histograms whose bins double, of whole rows and of each field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.rows import CONTENT

ROW = "row"
BINS = 48  # more than any row needs: the last one begins at 2**46 characters
_STARTS = np.concatenate([[0], 2 ** np.arange(BINS - 1, dtype=np.int64)])


class Lengths:
    """Takes in rows batch by batch. Lengths are in characters, of a chat those of its messages' contents."""

    def __init__(self, histograms: Sequence[Mapping[str, Any]] = (), totals: Mapping[str, int] | None = None) -> None:
        """`histograms` and `totals` are of rows that these ones are added to."""
        self._of_each = {one["field"]: _Histogram.of(one, (totals or {})[one["field"]]) for one in histograms}

    @property
    def totals(self) -> dict[str, int]:
        """Characters of each field, of which a mean has lost some."""
        return {name: histogram.total for name, histogram in self._of_each.items()}

    def add(self, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        total = np.zeros(rows.num_rows, np.int64)
        for name in CONTENT:
            column = rows[name]
            if column.null_count < rows.num_rows:
                there = pc.is_valid(column).to_numpy()
                lengths = _lengths(column, name)
                total += lengths
                self._of_each.setdefault(name, _Histogram()).add(lengths[there])
        self._of_each.setdefault(ROW, _Histogram()).add(total)

    def to_json(self) -> list[dict[str, Any]]:
        """Of whole rows, then of each field that a row has; bins without a row are left out at both ends."""
        names = [name for name in (ROW, *CONTENT) if name in self._of_each]
        return [{"field": name, **self._of_each[name].to_json()} for name in names]


class _Histogram:
    """0; 1; 2 to 3; 4 to 7; 8 to 15; and so on."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, np.int64)
        self.total = self._longest = 0
        self._shortest: int | None = None

    @classmethod
    def of(cls, shown: Mapping[str, Any], total: int) -> _Histogram:
        histogram = cls()
        for each in shown["bins"]:
            histogram._counts[int(each["at_least"]).bit_length()] = each["rows"]
        histogram.total, histogram._shortest, histogram._longest = total, shown["shortest"], shown["longest"]
        return histogram

    def add(self, lengths: npt.NDArray[np.int64]) -> None:
        if not len(lengths):
            return
        self._counts += np.bincount(np.searchsorted(_STARTS, lengths, side="right") - 1, minlength=BINS)
        self.total += int(lengths.sum())
        self._longest = max(self._longest, int(lengths.max()))
        shortest = int(lengths.min())
        self._shortest = shortest if self._shortest is None else min(self._shortest, shortest)

    def to_json(self) -> dict[str, Any]:
        rows = int(self._counts.sum())
        return {
            "rows": rows,
            "shortest": self._shortest or 0,
            "longest": self._longest,
            "mean": round(self.total / rows, 1),
            "bins": list(self._bins()),
        }

    def _bins(self) -> Iterator[dict[str, int]]:
        filled = np.flatnonzero(self._counts)
        for place in range(filled[0], filled[-1] + 1):
            at_most = 2**place - 1 if place else 0
            yield {"at_least": int(_STARTS[place]), "at_most": at_most, "rows": int(self._counts[place])}


def _lengths(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.int64]:
    """Of a null 0."""
    if name == "messages":
        chats = (json.loads(chat or "[]") for chat in column.to_pylist())
        return np.array([sum(len(message["content"]) for message in chat) for chat in chats], np.int64)
    return pc.fill_null(pc.utf8_length(column), 0).to_numpy().astype(np.int64)
