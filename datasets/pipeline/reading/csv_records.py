"""Records of a table as the values of their fields, and rows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.arrays import strings, table, with_context
from datasets.pipeline.flags import Positions
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.csv_dialect import Dialect
from datasets.pipeline.reading.csv_lines import Unread
from datasets.pipeline.rows import (
    BATCH_ROWS,
    ROWS,
    Parsed,
    Reason,
    Rejection,
    Unusable,
    parse_rejection,
    unfit,
)

_VALUE_BYTES = 64  # of a text of one's own, without its characters, and of the place that it is kept in


class CsvRecords:
    """Records of a table, and what is none of its lines."""

    def __init__(self, header: list[str], progress: float) -> None:
        self.progress = progress
        self.header = header
        self.rejections: list[Rejection] = []
        self._lines: list[int] = []
        self._values: list[Sequence[str]] = []

    @property
    def size(self) -> int:
        return len(self._lines)

    @property
    def held_bytes(self) -> int:
        """Of memory that the values take, roughly."""
        return sum(_VALUE_BYTES * len(values) + sum(map(len, values)) for values in self._values)

    @property
    def room(self) -> int:
        return BATCH_ROWS - self.size - len(self.rejections)

    @property
    def is_full(self) -> bool:
        return self.room <= 0

    def take_stretch(self, unread: Unread, dialect: Dialect) -> None:
        """Successive records that are written by the book, if there are some; then one has to be read by itself."""
        for number, found in unread.stretch(dialect, len(self.header), self.room):
            if found is None:
                self.reject(number, Reason.WRONG_FIELD_COUNT, unread.line(number))
            else:
                self.add(number, found)

    def add(self, line: int, values: Sequence[str]) -> None:
        self._lines.append(line)
        self._values.append(values)

    def reject(self, line: int, reason: Reason, seen: bytes, *, field: str | None = None) -> None:
        self.rejections.append(parse_rejection(line, reason, seen, field=field))

    def numbers(self) -> Sequence[int] | Positions:
        """The lines that records begin with."""
        return self._lines

    def values(self, place: int) -> Sequence[str]:
        return self._values[place]

    def column(self, name: str) -> pa.StringArray:
        place = self.header.index(name)
        return strings([values[place] for values in self._values])

    def sample(self, most: int) -> list[Mapping[str, Any]]:
        return [self._fields(place) for place in range(min(most, self.size))]

    def parsed(self, columns: Columns) -> Parsed:
        if columns.messages or not columns.needed().issubset(self.header):
            return self._one_by_one(columns)
        content = {"prompt": columns.prompt, "completion": columns.completion, "text": columns.text}
        arrays: dict[str, Any] = {role: self.column(name) for role, name in content.items() if name}
        if columns.prompt and columns.context in self.header:
            arrays["prompt"] = with_context(arrays["prompt"], self.column(columns.context))
        if columns.group in self.header:
            groups = self.column(columns.group)
            arrays["group"] = pc.if_else(pc.equal(groups, ""), pa.scalar(None, pa.string()), groups)
        rows = table({**arrays, "line": self.numbers()}, self.size)
        return Parsed(rows, [], self.rejections, self._fields, self.held_bytes)

    def _one_by_one(self, columns: Columns) -> Parsed:
        """Chats; and records of a zip's member that lacks what the columns of another one have."""
        rows, places, without_row = [], [], []
        for place, line in enumerate(self.numbers()):
            fields = self._fields(place)
            try:
                rows.append({**columns.row(fields), "line": int(line)})
                places.append(place)
            except Unusable as error:
                without_row.append(unfit(int(line), error, fields))
        kept = pa.Table.from_pylist(rows, schema=ROWS)
        return Parsed(kept, without_row, self.rejections, lambda row: self._fields(places[row]), self.held_bytes)

    def _fields(self, place: int) -> dict[str, str]:
        return dict(zip(self.header, self.values(place), strict=True))
