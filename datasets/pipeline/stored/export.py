"""A version's rows as a file for somebody else: JSONL, Parquet, or CSV, in pieces, in the memory of a row group.

Each row has the fields that a preview shows, less those that no row of the version has; of several splits together it
says its split first. A chat is JSON: an object's value in JSONL, a string in Parquet and CSV. JSONL and Parquet hold rows
as they are. In CSV a cell that begins with = + - @ tab or carriage return gets an apostrophe before it, because programs
that show tables would take it for a formula (OWASP, CSV Injection), and what a row does not have is empty.

pyarrow is imported within the functions: the web process imports this module, and has 2 s of CPU time to start.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from io import StringIO
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

FIELDS = ("prompt", "completion", "text", "messages")
SPLIT = "split"
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
PIECE_BYTES = 256 * 1024  # at least, of all pieces but the last
BATCH_ROWS = 256
ROW_GROUP_BYTES = 16 << 20


class ExportFormat(StrEnum):
    JSONL = "JSONL"
    PARQUET = "PARQUET"
    CSV = "CSV"

    @property
    def media_type(self) -> str:
        return {
            ExportFormat.JSONL: "application/jsonl; charset=utf-8",
            ExportFormat.PARQUET: "application/vnd.apache.parquet",
            ExportFormat.CSV: "text/csv; charset=utf-8; header=present",
        }[self]


@dataclass(frozen=True)
class Part:
    """A split, and how its shard is opened: once more for each time that it is looked into."""

    split: str
    open: Callable[[], IO[bytes]]


def exported(
    parts: Iterable[Part],
    split: str | None,
    export_format: ExportFormat,
    each_batch: Callable[[int], None] = lambda rows: None,
) -> Iterator[bytes]:
    """The file, piece by piece: of one split, or of all with a column that says which.

    `parts` are all of a version's, whichever are wanted: what no row of any of them has is no field of the file.
    `each_batch` hears how many rows more have been read.
    """
    parts = list(parts)
    wanted = [part for part in parts if split in (None, part.split)]
    fields = _fields(parts)
    rows = _told(_rows(wanted, fields, with_split=split is None), each_batch)
    names = ([SPLIT] if split is None else []) + fields
    # a generator, so that whoever makes one has opened no file yet
    yield from {ExportFormat.JSONL: _jsonl, ExportFormat.PARQUET: _parquet, ExportFormat.CSV: _csv}[export_format](
        rows, names
    )


def rows_in(parts: Iterable[Part], split: str | None) -> int:
    """How many rows the file will have."""
    import pyarrow.parquet as pq

    total = 0
    for part in parts:
        if split in (None, part.split):
            with part.open() as file:
                total += pq.read_metadata(file).num_rows
    return total


def _fields(parts: list[Part]) -> list[str]:
    """Those that a row has; all where there is no row."""
    import pyarrow.parquet as pq

    found: set[str] = set()
    for part in parts:
        with part.open() as file, pq.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):
                found |= {name for name in FIELDS if name not in found and _has_values(parquet, group, name)}
    return [name for name in FIELDS if name in found or not found]


def _has_values(parquet: pq.ParquetFile, group: int, name: str) -> bool:
    """By what the file says of a column, which is nothing of texts: one without any is soon read."""
    about = parquet.metadata.row_group(group)
    told = about.column(parquet.schema_arrow.get_field_index(name)).statistics
    if told and told.has_null_count:
        return bool(told.null_count < about.num_rows)
    column = parquet.read_row_group(group, columns=[name])[name]
    return bool(column.null_count < about.num_rows)


def _rows(parts: list[Part], fields: list[str], *, with_split: bool) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in parts:
        with part.open() as file, pq.ParquetFile(file) as parquet:
            for group in range(parquet.num_row_groups):
                for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[group], columns=fields):
                    columns = [batch.column(name) for name in fields]
                    splits = [pa.array([part.split] * batch.num_rows, pa.string())] if with_split else []
                    names = ([SPLIT] if with_split else []) + fields
                    yield pa.RecordBatch.from_arrays([*splits, *columns], names=names)


def _told(batches: Iterator[pa.RecordBatch], each_batch: Callable[[int], None]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        each_batch(batch.num_rows)


def _jsonl(batches: Iterator[pa.RecordBatch], names: list[str]) -> Iterator[bytes]:
    def lines() -> Iterator[str]:
        for row in _dicts(batches):
            values = ", ".join(f"{json.dumps(name)}: {_json(name, row[name])}" for name in names)
            yield f"{{{values}}}\n"

    return _pieces(lines())


def _json(name: str, value: str | None) -> str:
    if name == "messages" and value is not None:
        return value  # as rows hold it
    return json.dumps(value, ensure_ascii=False)


def _csv(batches: Iterator[pa.RecordBatch], names: list[str]) -> Iterator[bytes]:
    def lines() -> Iterator[str]:
        buffer = StringIO()
        # quotes around each: a program that takes semicolons or tabs for separators finds none outside of them
        writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
        writer.writerow(names)
        for row in _dicts(batches):
            writer.writerow([_cell(row[name]) for name in names])
            yield _taken(buffer)
        yield _taken(buffer)

    return _pieces(lines())


def _cell(value: str | None) -> str:
    if value is None:
        return ""
    return f"'{value}" if value.startswith(FORMULA_STARTS) else value


def _taken(buffer: StringIO) -> str:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text


def _dicts(batches: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        yield from batch.to_pylist()


def _pieces(lines: Iterator[str]) -> Iterator[bytes]:
    waiting = bytearray()
    for line in lines:
        waiting += line.encode()
        if len(waiting) >= PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _parquet(batches: Iterator[pa.RecordBatch], names: list[str]) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    sink = _Sink()
    with closing(pq.ParquetWriter(sink, schema, compression="zstd")) as writer:
        waiting: list[pa.RecordBatch] = []
        size = 0
        for batch in batches:
            waiting.append(batch)
            size += batch.nbytes
            if size >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(waiting, schema))
                waiting, size = [], 0
                yield from sink.taken()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting, schema))
    yield from sink.taken()


class _Sink:
    """What a Parquet writer takes for a file: it is only ever appended to."""

    closed = False

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._position = 0

    def write(self, data: Any) -> int:
        self._waiting += data
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def taken(self) -> Iterator[bytes]:
        content = bytes(self._waiting)
        self._waiting.clear()
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]
