"""JSON records that are written alike, through the compiled loop: the rows of a block are made from buffers, not from objects."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.arrays import table, with_context
from datasets.pipeline.flags import Positions
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.lines import PADDING, Lines
from datasets.pipeline.reading.scan.json_lines import GROUP, NEEDED, OPTIONAL, OTHER, TAKEN, scan
from datasets.pipeline.reading.scan.json_values import BROKEN, MOST_DEPTH, MOST_INNER_KEYS, ODD
from datasets.pipeline.reading.scan.vectors import WIDTH
from datasets.pipeline.reading.shapes import Part, Scanned
from datasets.pipeline.rows import MAX_LINE_BYTES

assert len(PADDING) >= WIDTH, "a vector behind the last byte"

Statuses = np.ndarray[Any, np.dtype[np.int8]]


class Scan:
    """Takes records of the shapes that are known, and says which of the others a decoder has to look at."""

    def __init__(self) -> None:
        self._loops: dict[tuple[frozenset[str], Columns], _Loop] = {}

    def __call__(
        self, lines: Lines, numbers: Positions, columns: Columns, shapes: Iterable[frozenset[str]]
    ) -> Scanned | None:
        """None where rows of these columns are made otherwise."""
        needed = columns.texts()
        if not needed:
            return None
        parts, statuses, some, left = [], np.full(len(lines), OTHER, np.int8), lines, np.arange(len(lines))
        for keys in shapes:
            if not len(left) or not needed.issubset(keys):
                continue
            if (keys, columns) not in self._loops:
                self._loops[keys, columns] = _Loop(keys, columns)
            found, rows = self._loops[keys, columns].rows(some, numbers[left])
            if len(rows):
                parts.append(Part(left[found == TAKEN], rows))
            statuses[left] = found
            left = left[found == OTHER]
            some = lines.chosen(left)
        return Scanned(
            parts, np.flatnonzero(statuses == ODD), np.flatnonzero((statuses == BROKEN) | (statuses == OTHER))
        )


class _Loop:
    """The loop's arguments for one shape."""

    def __init__(self, keys: frozenset[str], columns: Columns) -> None:
        self._roles = columns
        self._names = [name for name in dict.fromkeys(_wanted(columns)) if name in keys]
        ordered = sorted(keys)
        written = [key.encode() for key in ordered]
        self._keys = np.frombuffer(b"".join(written), np.uint8).copy()
        self._bounds = np.array([0, *accumulate(map(len, written))], np.int64)
        self._columns = np.array([self._names.index(key) if key in self._names else -1 for key in ordered], np.int64)
        self._kinds = np.array([_kind(key, columns) for key in ordered], np.int64)
        self._order = np.arange(len(ordered))
        self._nest, self._inner = np.zeros((MOST_DEPTH, 2), np.int64), np.zeros((MOST_INNER_KEYS, 2), np.int64)
        self._into = np.empty(0, np.uint8)

    def rows(self, lines: Lines, numbers: Positions) -> tuple[Statuses, pa.Table]:
        """(the status of each of the lines, the rows of those that were taken)."""
        room = int(lines.ends.sum() - lines.starts.sum()) + WIDTH
        if len(self._into) < len(self._names) * room:
            self._into = np.empty(len(self._names) * room, np.uint8)
        bounds = np.zeros((len(self._names), len(lines) + 1), np.int32)
        filled = np.zeros((len(self._names), len(lines)), np.bool_)
        statuses = np.empty(len(lines), np.int8)
        size = scan(
            lines.padded, lines.starts, lines.ends, MAX_LINE_BYTES, self._keys, self._bounds, self._columns, self._kinds, self._order,
            self._nest, self._inner, room, self._into, bounds, filled, statuses,
        )  # fmt: skip
        texts = {}
        for place, name in enumerate(self._names):
            ends_here = bounds[place, : size + 1].copy()
            data = self._into[place * room : place * room + int(ends_here[-1])].tobytes()
            texts[name] = _strings(ends_here, data, filled[place, :size])
        return statuses, table({**self._content(texts), "line": numbers[statuses == TAKEN]}, size)

    def _content(self, texts: dict[str, pa.StringArray]) -> dict[str, Any]:
        roles = self._roles
        content: dict[str, Any] = {"group": _without_empty(texts[roles.group])} if roles.group in texts else {}
        if roles.prompt and roles.completion:
            prompts = texts[roles.prompt]
            if roles.context in texts:
                prompts = with_context(prompts, texts[roles.context])
            return {**content, "prompt": prompts, "completion": texts[roles.completion]}
        assert roles.text
        return {**content, "text": texts[roles.text]}


def _wanted(columns: Columns) -> Iterable[str]:
    return filter(None, (*sorted(columns.texts()), columns.context, columns.group))


def _kind(key: str, columns: Columns) -> int:
    if key in columns.texts():
        return NEEDED
    return OPTIONAL if key == columns.context else GROUP


def _strings(ends: np.ndarray[Any, Any], data: bytes, filled: np.ndarray[Any, Any]) -> pa.StringArray:
    valid = None if filled.all() else pa.py_buffer(np.packbits(filled, bitorder="little"))
    return pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(data), valid)


def _without_empty(groups: pa.StringArray) -> pa.StringArray:
    """A row whose group is "" has none."""
    return pc.if_else(pc.equal(groups, ""), pa.scalar(None, pa.string()), groups)
