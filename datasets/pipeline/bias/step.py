"""The step that counts of whom rows speak, in what words, and what they are labelled. It changes and drops nothing.

It looks at what is stored, after masking. The same rows give the same report, in whatever batches they come; what it
remembers is some thousands of numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa

from datasets.pipeline.bias.counts import Counts
from datasets.pipeline.bias.labels import Labels
from datasets.pipeline.bias.report import report
from datasets.pipeline.bias.summary import what_to_look_at
from datasets.pipeline.rows import Outcome


class Bias:
    name = "bias"

    def __init__(self, counted: Mapping[str, Any] | None = None) -> None:
        """`counted` is what `to_json` gave for rows that these ones are added to."""
        self._counts = Counts.from_json(counted["counts"]) if counted else Counts()
        self._labels = Labels.from_json(counted["labels"]) if counted else Labels()

    def begin(self, *, is_large: bool = False) -> Callable[[pa.Table], Outcome]:
        """`is_large`: whether a compiled loop pays for its start."""
        if is_large:
            self._counts.compile()
        return self._apply

    def _apply(self, rows: pa.Table) -> Outcome:
        if rows.num_rows:
            self._labels.add(rows, self._counts.add(rows))
        return Outcome(rows)

    def to_json(self) -> dict[str, Any]:
        """What was counted, so that it can be gone on with."""
        return {"counts": self._counts.to_json(), "labels": self._labels.to_json()}

    def report(self) -> dict[str, Any]:
        """The numbers, and as `look_at` the sentences about them; as JSON."""
        numbers = report(self._counts, self._labels)
        return {"look_at": what_to_look_at(numbers), **numbers}
