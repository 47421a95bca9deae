"""Single rows of a shard, by the pages that hold them: Arrow decodes a row group for each, this some ten kilobytes.

Shards are written so that a page of what is read here is whole by itself (shards.py), and where pages lie is kept beside them. What Arrow
does not do for Python is little: to read the headers of pages, which are Thrift's compact protocol, and to find a value in a
page of plain ones: https://parquet.apache.org/docs/file-format/, and parquet.thrift of the same project.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.pipeline.rows import CONTENT, ROWS

COLUMNS = (*CONTENT, "source", "line")
"""Those that can be read: texts, and numbers of 64 bits."""
PAGES = np.dtype(
    [("split", "i1"), ("column", "i1"), ("row", "<i8"), ("begin", "<i8"), ("packed_bytes", "<u4"), ("bytes", "<u4")]
)
"""A page of a column's place in COLUMNS: its first row in the shard, and where it lies there. It has no bytes if it has no values."""
CODEC = "zstd"

# As parquet.thrift numbers the fields of PageHeader, those of DataPageHeader, and what is in them.
PAGE_TYPE, PAGE_BYTES, PACKED_BYTES, DATA_PAGE_HEADER = 1, 2, 3, 5
VALUES, ENCODING = 1, 2
DATA_PAGE, PLAIN = 0, 0
# As Thrift numbers the types that headers have.
TRUE, FALSE, SHORT, INT, LONG, BINARY, STRUCT = 1, 2, 4, 5, 6, 8, 12

LENGTH = Struct("<I")  # of four bytes
LEVELS_ALONE_BYTES = 64  # a page without values is not larger: its rows are one run
Ints = npt.NDArray[np.int64]


def pages_of(path: Path, split: int) -> npt.NDArray[np.void]:
    """All pages of a shard, column by column."""
    found = []
    with pq.ParquetFile(path, memory_map=True) as shard, path.open("rb") as file:
        about = shard.metadata
        if not about.num_row_groups:
            return np.zeros(0, PAGES)
        numbers = {about.schema.column(each).path: each for each in range(about.num_columns)}
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, name in enumerate(COLUMNS):
                row = 0
                for group in range(about.num_row_groups):
                    chunk = about.row_group(group).column(numbers[name])
                    assert chunk.compression == CODEC.upper() and not chunk.has_dictionary_page
                    for rows, begin, packed_bytes, size in _pages(data, chunk.data_page_offset, chunk.num_values):
                        if size <= LEVELS_ALONE_BYTES and ROWS.field(name).nullable:
                            levels = _unpacked(data[begin : begin + packed_bytes], size)
                            size = size if 1 in _levels(levels, rows) else 0
                        found.append((split, number, row, begin, packed_bytes, size))
                        row += rows
    return np.array(found, PAGES)


def take(path: Path, pages: npt.NDArray[np.void], places: Ints) -> pa.Table:
    """The rows at `places`, at least one, which ascend, of a shard with these pages; their COLUMNS."""
    arrays = []
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for number, name in enumerate(COLUMNS):
            mine, field = pages[pages["column"] == number], ROWS.field(name)
            values: list[bytes | int | None] = []
            numbers, firsts = np.unique(np.searchsorted(mine["row"], places, "right") - 1, return_index=True)
            ends = [*firsts[1:].tolist(), len(places)]
            for page, first, end in zip(mine[numbers].tolist(), firsts.tolist(), ends, strict=True):
                _, _, row, begin, packed_bytes, size = page
                if not size:
                    values += [None] * (end - first)
                    continue
                content = _unpacked(data[begin : begin + packed_bytes], size)
                values += _values(content, (places[first:end] - row).tolist(), field)
            kind = pa.binary() if pa.types.is_string(field.type) else field.type
            arrays.append(pa.array(values, kind).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=pa.schema([ROWS.field(name) for name in COLUMNS]))


def _unpacked(packed: bytes, size: int) -> bytes:
    content: bytes = pa.decompress(packed, size, CODEC, asbytes=True)
    return content


def _values(content: bytes, rows: list[int], field: pa.Field) -> Iterator[bytes | int | None]:
    """Those of a page's rows, which ascend."""
    if not field.nullable:
        yield from (int.from_bytes(content[8 * row : 8 * row + 8], "little", signed=True) for row in rows)
        return
    there = _levels(content, rows[-1] + 1)
    size_at, (levels,) = LENGTH.unpack_from, LENGTH.unpack_from(content)
    place, passed = 4 + levels, 0
    for row in rows:
        if there[row]:
            number = there.count(1, 0, row)
            for _ in range(passed, number):
                place += 4 + size_at(content, place)[0]
            passed = number
            yield content[place + 4 : place + 4 + size_at(content, place)[0]]
        else:
            yield None


def _levels(content: bytes, rows: int) -> bytes:
    """For each of the first rows 1 if it has a value, and otherwise 0; they come in runs, of which some are packed as bits."""
    found, place = b"", 4
    while len(found) < rows:
        head, place = _varint(content, place)
        if head & 1:
            bits = np.frombuffer(content, np.uint8, head >> 1, place)
            found += np.unpackbits(bits, bitorder="little").tobytes()
            place += head >> 1
        else:
            found += content[place : place + 1] * (head >> 1)
            place += 1
    return found[:rows]


def _pages(data: mmap.mmap, place: int, rows: int) -> Iterator[tuple[int, int, int, int]]:
    """Of a chunk that begins there: rows, where the content begins, how long it is, and how long once it is unpacked."""
    while rows:
        header, place = _struct(data, place)
        about = header[DATA_PAGE_HEADER]
        assert header[PAGE_TYPE] == DATA_PAGE and about[ENCODING] == PLAIN
        yield about[VALUES], place, header[PACKED_BYTES], header[PAGE_BYTES]
        rows, place = rows - about[VALUES], place + header[PACKED_BYTES]


def _struct(data: mmap.mmap, place: int) -> tuple[dict[int, Any], int]:
    """The fields by their numbers, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[place]:
        place += 1
        if head >> 4:
            number += head >> 4
        else:
            number, place = _signed(data, place)
        fields[number], place = _field(data, place, head & 15)
    return fields, place + 1


def _field(data: mmap.mmap, place: int, kind: int) -> tuple[Any, int]:
    if kind in (SHORT, INT, LONG):
        return _signed(data, place)
    if kind in (TRUE, FALSE):
        return kind == TRUE, place
    if kind == BINARY:
        size, place = _varint(data, place)
        return data[place : place + size], place + size
    assert kind == STRUCT
    return _struct(data, place)


def _signed(data: mmap.mmap, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _varint(data: mmap.mmap | bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while (byte := data[place]) >= 128:
        value |= (byte & 127) << shift
        shift, place = shift + 7, place + 1
    return value | byte << shift, place + 1
