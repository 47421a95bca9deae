"""Rows from pieces of JSON, each of which should be one record: those written alike in one go, the others one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa

from datasets.pipeline.flags import Positions
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.lines import Lines, is_blank
from datasets.pipeline.reading.objects import decode_object
from datasets.pipeline.reading.shapes import Part, Shapes
from datasets.pipeline.rows import ROWS, Parsed, Rejection, Unusable, parse_rejection, unfit


@cache
def _no_rows() -> pa.Table:
    return ROWS.empty_table()  # not where it is imported: the first table has Arrow look for pandas


class JsonRecords:
    """Records as they stand in the upload, and the numbers of their lines; blank ones are none."""

    def __init__(self, records: Lines, numbers: Sequence[int] | Positions, progress: float, shapes: Shapes) -> None:
        self.progress = progress
        self._records = records
        self._numbers = np.asarray(numbers, np.int64)
        self._shapes = shapes

    def sample(self, most: int) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        for raw in self._records:
            if len(found) == most:
                break
            try:
                found.append(decode_object(raw))
            except Unusable:
                continue
            self._shapes.learn(found[-1])
        return found

    def parsed(self, columns: Columns) -> Parsed:
        parts, left = self._shapes.decode(self._records, self._numbers, columns)
        strict = self._strictly(left, columns)
        rows, positions = in_order([*parts, strict[0]])
        raw = self._records.chosen(positions)  # and not the places of all lines, which a line break may be all of
        held = len(raw.data) + raw.starts.nbytes + raw.ends.nbytes
        return Parsed(rows, strict[1], strict[2], lambda place: decode_object(raw[place]), held)

    def _strictly(self, left: Positions, columns: Columns) -> tuple[Part, list[Rejection], list[Rejection]]:
        """(rows, what makes no row, what cannot be read) of the records at these positions, one by one."""
        rows, places, without_row, rejections = [], [], [], []
        numbers = self._numbers[left].tolist()
        for position, line, raw in zip(left.tolist(), numbers, self._records.at(left), strict=True):
            if is_blank(raw):
                continue
            try:
                fields = decode_object(raw)
            except Unusable as error:
                rejections.append(parse_rejection(line, error.reason, raw, field=error.field))
                continue
            self._shapes.learn(fields)
            try:
                rows.append({**columns.row(fields), "line": line})
                places.append(position)
            except Unusable as error:
                without_row.append(unfit(line, error, fields))
        table = pa.Table.from_pylist(rows, schema=ROWS) if rows else _no_rows()
        part = Part(np.array(places, np.int64), table)
        return part, without_row, rejections


def in_order(parts: Sequence[Part]) -> tuple[pa.Table, Positions]:
    """All rows in the order of the upload, and where their records stand."""
    filled = [part for part in parts if len(part.positions)]
    if len(filled) == 1:
        return filled[0].rows, filled[0].positions
    if not filled:
        return _no_rows(), np.empty(0, np.int64)
    positions = np.concatenate([part.positions for part in filled])
    order = np.argsort(positions, kind="stable")
    rows = pa.concat_tables([part.rows for part in filled]).combine_chunks().take(pa.array(order))
    return rows, positions[order]
