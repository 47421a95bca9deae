"""What rows are labelled, where they are: completions of a few short kinds; and the values of their column `group`.

Both are kept only while they are few, so that memory is bounded; whether they are does not depend on the order of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.bias.counts import Numbers

MAX_LABELS = 20
MAX_LABEL_CHARACTERS = 40
MIN_ROWS_PER_LABEL = 10
MAX_GROUPS = 1_000

_FLAGS = ("rows", "few_labels", "few_groups")
_COUNTERS = ("labels", "groups", "by_identity", "by_group")


class Labels:
    def __init__(self) -> None:
        self.rows = 0
        self.few_labels = self.few_groups = True
        self.labels: Counter[str] = Counter()
        self.groups: Counter[str] = Counter()
        self.by_identity: Counter[tuple[int, str]] = Counter()
        self.by_group: Counter[tuple[str, str]] = Counter()

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in _FLAGS},
            **{name: sorted(map(list, getattr(self, name).items())) for name in _COUNTERS},
        }

    @classmethod
    def from_json(cls, counted: Mapping[str, Any]) -> Labels:
        labels = cls()
        for name in _FLAGS:
            setattr(labels, name, counted[name])
        for name in _COUNTERS:
            keys = [(tuple(key) if isinstance(key, list) else key, count) for key, count in counted[name]]
            getattr(labels, name).update(dict(keys))
        return labels

    @property
    def is_labelled(self) -> bool:
        return self.few_labels and len(self.labels) > 1 and self.rows >= MIN_ROWS_PER_LABEL * len(self.labels)

    def add(self, rows: pa.Table, mentions: tuple[Numbers, Numbers]) -> None:
        """Count a batch; `mentions` are its rows and the numbers of the identity groups that they mention."""
        self.rows += rows.num_rows
        group = rows["group"].combine_chunks()
        has_groups = group.null_count < len(group)
        if self.few_groups and has_groups:
            self._add_groups(group)
        if self.few_labels:
            label = self._labels_of(rows["completion"].combine_chunks())
            if label is None:
                self._forget_labels()
                return
            self._add_labels(label, mentions)
            if self.few_groups and has_groups:
                self._count(self.by_group, group, label)

    def _add_groups(self, group: pa.StringArray) -> None:
        self._count(self.groups, group)
        if len(self.groups) > MAX_GROUPS:
            self.few_groups = False
            self.groups.clear()
            self.by_group.clear()

    def _labels_of(self, completion: pa.StringArray) -> pa.StringArray | None:
        if completion.null_count:
            return None
        label = pc.utf8_trim_whitespace(completion)
        return label if (pc.max(pc.utf8_length(label)).as_py() or 0) <= MAX_LABEL_CHARACTERS else None

    def _add_labels(self, label: pa.StringArray, mentions: tuple[Numbers, Numbers]) -> None:
        self._count(self.labels, label)
        if len(self.labels) > MAX_LABELS:
            self._forget_labels()
            return
        places, numbers = mentions
        self._count(self.by_identity, pa.array(numbers, pa.int64()), label.take(pa.array(places, pa.int64())))

    def _count(self, counter: Counter[Any], *columns: pa.Array) -> None:
        """How often each combination of values occurs, except those with a null."""
        names = [str(place) for place in range(len(columns))]
        counted = pa.table(list(columns), names).group_by(names).aggregate([([], "count_all")])
        keys = [counted[name].to_pylist() for name in names]
        for key, count in zip(zip(*keys, strict=True), counted["count_all"].to_pylist(), strict=True):
            if None not in key:
                counter[key if len(key) > 1 else key[0]] += count

    def _forget_labels(self) -> None:
        self.few_labels = False
        for counts in (self.labels, self.by_identity, self.by_group):
            counts.clear()
