"""Parquet: rows in batches from a child process that decodes them; a row's line is its number, from 1.

Only columns that may become something are read. A row is judged as its twin in JSON Lines would be: text has to be UTF-8
without NUL, and together no longer than a line may be.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from common.child import ChildError
from datasets.pipeline.arrays import bounds_of, bytes_of, table, with_context
from datasets.pipeline.flags import Flags, Positions
from datasets.pipeline.reading import parquet_reader
from datasets.pipeline.reading.allowance import Allowance
from datasets.pipeline.reading.columns import KNOWN_NAMES, Columns
from datasets.pipeline.reading.json_rows import in_order
from datasets.pipeline.reading.objects import check_text
from datasets.pipeline.reading.pipes import ChildDied, read_exactly
from datasets.pipeline.reading.shapes import Part
from datasets.pipeline.rows import MAX_LINE_BYTES, ROWS, Parsed, Reason, Rejection, Unusable, parse_rejection, unfit

BASE_CPU_SECONDS = 5
CPU_SECONDS_PER_MB = 2
ROW_BYTES = 16  # a row of nothing but nulls takes that much of the allowance
_ENVIRONMENT = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",  # the others reserve a gigabyte in advance, which the limit would count
    "MALLOC_ARENA_MAX": "1",
    "ARROW_IO_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def read_parquet(path: Path, mapped: tuple[str, ...] = ()) -> Iterator[ParquetRecords]:
    """Batches of records. Raises ChildError where the file is not whole, or takes more than it may."""
    size = path.stat().st_size
    allowance = Allowance(size, "PARQUET_BOMB", "The Parquet file")
    cpu_seconds = BASE_CPU_SECONDS + CPU_SECONDS_PER_MB * (size >> 20)
    child = _start(path, cpu_seconds, mapped)
    try:
        names, rows = _begin(_frame(child, cpu_seconds))
        first = 1
        while batch := _frame(child, cpu_seconds):
            records = _batch(batch)
            allowance.take(records.nbytes + ROW_BYTES * records.num_rows)
            done = first + records.num_rows - 1
            yield ParquetRecords(records, names, first, done / max(rows, 1))
            first = done + 1
    finally:
        child.kill()
        child.communicate()


def _start(path: Path, cpu_seconds: int, mapped: tuple[str, ...]) -> subprocess.Popen[bytes]:
    arguments = [str(path.resolve()), str(cpu_seconds), json.dumps(sorted(KNOWN_NAMES)), json.dumps(mapped)]
    command = [sys.executable, "-I", "-W", "ignore", parquet_reader.__file__, *arguments]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**os.environ, **_ENVIRONMENT},
    )


def _frame(child: subprocess.Popen[bytes], cpu_seconds: int) -> bytes:
    """The next frame's payload; nothing at the end. Raises ChildError."""
    assert child.stdout
    try:
        kind, size = struct.unpack(">cQ", read_exactly(child.stdout.fileno(), 9))
        payload = read_exactly(child.stdout.fileno(), size)
    except ChildDied:
        raise ChildError(
            "PARQUET_TOO_COSTLY",
            f"The Parquet file cannot be decoded within {parquet_reader.MAX_MEMORY_BYTES >> 20} MB of memory and "
            f"{cpu_seconds} s. Write it again, with smaller row groups, and upload it again.",
        ) from None
    if kind == b"F":
        raise ChildError(**json.loads(payload))
    return payload


def _begin(header: bytes) -> tuple[list[str], int]:
    found = json.loads(header)
    return found["names"], found["rows"]


def _batch(payload: bytes) -> pa.RecordBatch:
    batch = pa.ipc.open_stream(payload).read_next_batch()
    try:
        batch.validate(full=True)  # the text of messages may be no UTF-8: that costs its row, not the file
    except pa.ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise ChildError("PARQUET_UNREADABLE", parquet_reader.BROKEN.format(str(error)[:150])) from None
    return batch


class ParquetRecords:
    """A batch as the child sends it: text as bytes, chats as they are, and the last column only for its length."""

    def __init__(self, batch: pa.RecordBatch, names: Sequence[str], first: int, progress: float) -> None:
        self.progress = progress
        self._batch = batch
        self._names = names
        self._first = first

    def sample(self, most: int) -> list[Mapping[str, Any]]:
        """The names of each row's fields that hold something, and at last those of all columns."""
        size = min(most, self._batch.num_rows)
        if not size:
            return []
        filled = {name: self._column(name)[:size].is_valid().to_pylist() for name in self._batch.schema.names[:-1]}
        rows = [{name: None for name, there in filled.items() if there[place]} for place in range(size)]
        return [*rows, dict.fromkeys(self._names)]

    def parsed(self, columns: Columns) -> Parsed:
        quick = self._quick(columns)
        left = np.setdiff1d(np.arange(self._batch.num_rows), quick.positions, assume_unique=True)
        slow, without_row, rejections = self._one_by_one(left, columns)
        rows, positions = in_order([quick, slow])
        held = self._batch.get_total_buffer_size()
        return Parsed(rows, without_row, rejections, lambda place: self._shown(int(positions[place])), held)

    def _quick(self, columns: Columns) -> Part:
        """The rows of plain text, all at once: those with nothing about them that needs a closer look."""
        size = self._batch.num_rows
        texts = {name: self._as_text(name) for name in (*columns.texts(), columns.context) if name}
        if not columns.texts() or any(one is None for name, one in texts.items() if name != columns.context):
            return Part(np.empty(0, np.int64), ROWS.empty_table())
        fine = np.ones(size, np.bool_)
        total = np.zeros(size, np.int64)
        for name, text in texts.items():
            if text is not None:
                fine &= _without_nul(text)
                total += pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
                if name in columns.texts():
                    fine &= text.is_valid().to_numpy(zero_copy_only=False)
        fine &= total <= MAX_LINE_BYTES
        arrays: dict[str, Any] = {"line": np.arange(self._first, self._first + size)}
        if columns.prompt and columns.completion:
            arrays["prompt"], arrays["completion"] = texts[columns.prompt], texts[columns.completion]
            if columns.context and self._has(columns.context):
                if (context := texts[columns.context]) is None:
                    fine &= self._column(columns.context).is_null().to_numpy(zero_copy_only=False)
                else:
                    arrays["prompt"] = with_context(arrays["prompt"], context)
        else:
            arrays["text"] = texts[columns.text or ""]
        if columns.group and self._has(columns.group):
            arrays["group"], known = self._groups(columns.group)
            fine &= known
        places = np.flatnonzero(fine)
        return Part(places, table(arrays, size).take(pa.array(places)).combine_chunks())

    def _groups(self, name: str) -> tuple[pa.Array, Flags]:
        """The groups, and for which rows they are sure."""
        column, text = self._column(name), self._as_text(name)
        if text is not None:
            return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text), _without_nul(text)
        if pa.types.is_integer(column.type):
            return column.cast(pa.string()), np.ones(len(column), np.bool_)
        return pa.nulls(len(column), pa.string()), column.is_null().to_numpy(zero_copy_only=False)

    def _one_by_one(self, left: Positions, columns: Columns) -> tuple[Part, list[Rejection], list[Rejection]]:
        """(rows, what makes no row, what cannot be read) of the records at these positions."""
        rows, places, without_row, rejections = [], [], [], []
        chosen = [name for name in dict.fromkeys(columns.to_json().values()) if self._has(name)]
        for place in left.tolist():
            line = self._first + place
            try:
                fields = self._fields(place, chosen)
            except Unusable as error:
                rejections.append(parse_rejection(line, error.reason, self._excerpt(place, error), field=error.field))
                continue
            try:
                rows.append({**columns.row(fields), "line": line})
                places.append(place)
            except Unusable as error:
                without_row.append(unfit(line, error, fields))
        return Part(np.array(places, np.int64), pa.Table.from_pylist(rows, schema=ROWS)), without_row, rejections

    def _fields(self, place: int, names: Sequence[str]) -> dict[str, Any]:
        """The record's fields. Raises Unusable for what its twin in JSON Lines could not hold."""
        fields: dict[str, Any] = {}
        size = 0
        for name in names:
            value, taken = self._value(place, name)
            size += taken
            fields[name] = value
        if size > MAX_LINE_BYTES:
            raise Unusable(Reason.LINE_TOO_LONG)
        return fields

    def _value(self, place: int, name: str) -> tuple[Any, int]:
        """A field as JSON would have it, and how many bytes its text takes. Raises Unusable."""
        try:
            value = self._column(name)[place].as_py()
            if isinstance(value, bytes):
                text = value.decode()
                check_text(text, name)
                return text, len(value)
            if not isinstance(value, list):
                return value, 0
            messages = [_message(message) for message in value]
        except UnicodeDecodeError:
            raise Unusable(Reason.NOT_UTF8, name) from None
        size = 0
        for message in messages:
            for part in (message or {}).values():
                if isinstance(part, str):
                    check_text(part, name)
                    size += len(part.encode())
        return messages, size

    def _shown(self, place: int) -> dict[str, Any]:
        return {name: _as_shown(self._column(name)[place]) for name in self._batch.schema.names[:-1]}

    def _excerpt(self, place: int, error: Unusable) -> str:
        if error.field is None:
            return str(self._shown(place))
        return str(_as_shown(self._column(error.field)[place]))

    def _has(self, name: str) -> bool:
        return name in self._batch.schema.names[:-1]

    def _column(self, name: str) -> pa.Array:
        return self._batch.column(name)

    def _as_text(self, name: str) -> pa.StringArray | None:
        """The column, if it is text and each row's is UTF-8."""
        if not self._has(name) or not pa.types.is_binary(self._column(name).type):
            return None
        try:
            return self._column(name).cast(pa.string())
        except pa.ArrowInvalid:
            return None


def _message(message: dict[str, Any] | None) -> dict[str, Any] | None:
    """Without the parts that are null: JSON would not have them."""
    if message is None:
        return None
    parts = {name: part.decode() if isinstance(part, bytes) else part for name, part in message.items()}
    return {name: part for name, part in parts.items() if part is not None}


def _as_shown(scalar: pa.Scalar) -> Any:
    try:
        value = scalar.as_py()
    except UnicodeDecodeError:
        return "\ufffd"
    return value[:MAX_LINE_BYTES].decode("utf-8", "replace") if isinstance(value, bytes) else value


def _without_nul(texts: pa.StringArray) -> Flags:
    """For each text whether it has no NUL."""
    bounds = bounds_of(texts)
    fine = np.ones(len(texts), np.bool_)
    fine[np.searchsorted(bounds[1:] - bounds[0], np.flatnonzero(bytes_of(texts) == 0), side="right")] = False
    return fine
