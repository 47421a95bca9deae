"""Decodes a Parquet file from somebody unknown, in a process of its own.

Run as a script in an isolated interpreter (python -I): what a footer or a page claims can make Arrow ask for any amount of
memory or time, or crash it, and then only this process ends. It prints frames, each a kind, a length, and a payload:

    H   JSON: {"names": of all columns, "rows": how many}
    B   an Arrow stream of one batch, of the columns that may become something
    F   JSON: {"code", "message"}: the file cannot be read, or no further
    E   nothing more to come

Text comes as bytes, because Parquet promises no UTF-8. What is neither text, a whole number, nor a list of messages comes
as a column of false: there, and of the wrong type.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MAX_MEMORY_BYTES = 192 << 20  # beyond what the interpreter and Arrow take by themselves
MAX_FOOTER_BYTES = 16 << 20
MAX_COLUMNS = 1_000
MAX_DEPTH = 50
BATCH_BYTES = 1 << 20
BATCH_ROWS = 20_000
PART_NAMES = frozenset({"role", "content", "from", "value"})  # of a message; nothing else of it is read

MAGIC = b"PAR1"
BROKEN = "The Parquet file is cut off or damaged ({}). Write it again and upload it again."


class Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Source:
    """An opened file, within limits that hold before anything is allocated."""

    def __init__(self, path: str, wanted: set[str], mapped: set[str]) -> None:
        _check_footer(path)
        self._file = pq.ParquetFile(
            path,
            pre_buffer=False,
            buffer_size=BATCH_BYTES,
            thrift_string_size_limit=MAX_FOOTER_BYTES,
            thrift_container_size_limit=200_000,
            schema_depth_limit=MAX_DEPTH,
            page_checksum_verification=True,
        )
        metadata = self._file.metadata
        if metadata.num_columns > MAX_COLUMNS:
            raise Refused(
                "TOO_MANY_COLUMNS",
                f"The file has {metadata.num_columns:,} columns; at most {MAX_COLUMNS:,} can be read.",
            )
        self.rows: int = metadata.num_rows
        self.names: list[str] = self._file.schema_arrow.names
        twice = next((name for place, name in enumerate(self.names) if name in self.names[:place]), None)
        if twice is not None:
            raise Refused("DUPLICATE_COLUMN", f"The file has two columns named '{twice[:60]}'. Rename one.")
        self._read = [name for name in self.names if name in mapped or name.strip().lower() in wanted]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Batches of about BATCH_BYTES, as far as the footer tells the size of rows."""
        metadata, leaves = self._file.metadata, self._leaves()
        for group in range(metadata.num_row_groups):
            about = metadata.row_group(group)
            row_bytes = max(about.total_byte_size // max(about.num_rows, 1), 1)
            size = min(max(BATCH_BYTES // row_bytes, 16), BATCH_ROWS)
            for batch in self._file.iter_batches(size, row_groups=[group], columns=leaves, use_threads=False):
                yield self._plain(batch)

    def _plain(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = [_plain(batch.column(name)) for name in self._read]
        rows = pa.nulls(batch.num_rows)  # a batch without columns would have no rows
        return pa.RecordBatch.from_arrays([*columns, rows], [*self._read, ""])

    def _leaves(self) -> list[str]:
        """The paths of what is read; where nothing can become something, of the first column, for its rows."""
        schema = self._file.schema
        paths = [schema.column(place).path for place in range(len(schema))]
        chosen = [path for path in paths if any(_is_wanted_of(name, path) for name in self._read)]
        missing = [name for name in self._read if not any(_is_wanted_of(name, path) for path in paths)]
        chosen += [path for path in paths if any(path.startswith(f"{name}.") for name in missing)]
        return chosen or paths[:1]


def _is_wanted_of(name: str, path: str) -> bool:
    return path == name or (path.startswith(f"{name}.") and path.rsplit(".", 1)[-1] in PART_NAMES)


def _check_footer(path: str) -> None:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if size < 12 or file.read(4) != MAGIC:
            raise Refused("PARQUET_UNREADABLE", BROKEN.format("it is too short"))
        file.seek(-8, os.SEEK_END)
        length, magic = struct.unpack("<L4s", file.read(8))
    if magic != MAGIC or length > size - 12:
        raise Refused("PARQUET_UNREADABLE", BROKEN.format("its footer is missing"))
    if length > MAX_FOOTER_BYTES:
        raise Refused(
            "PARQUET_TOO_COSTLY",
            f"The footer has {length:,} bytes; at most {MAX_FOOTER_BYTES:,} are read. "
            "Leave out columns, or write larger row groups.",
        )


def _plain(array: pa.Array) -> pa.Array:
    while True:
        kind = array.type
        if isinstance(kind, pa.BaseExtensionType):
            array = array.storage
        elif pa.types.is_dictionary(kind):
            array = array.dictionary_decode()
        else:
            break
    if _is_text(kind):
        return array.cast(pa.binary())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind) or _is_chat(kind):
        return array
    absent = array.is_null()
    return pa.array([None if one else False for one in absent.to_pylist()], pa.bool_())


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _is_chat(kind: pa.DataType) -> bool:
    is_list = (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
    return is_list and pa.types.is_struct(kind.value_type) and all(_is_simple(part.type) for part in kind.value_type)


def _is_simple(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)


def _write(kind: bytes, payload: Any = b"") -> None:
    data = memoryview(payload)
    sys.stdout.buffer.write(kind + struct.pack(">Q", data.nbytes))
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _serialized(batch: pa.RecordBatch) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return sink.getvalue()


def _limit(cpu_seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[5])
    most = pages * resource.getpagesize() + MAX_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main(path: str, wanted: set[str], mapped: set[str]) -> None:
    try:
        source = Source(path, wanted, mapped)
        names = [name[:1_000] for name in source.names]
        _write(b"H", json.dumps({"names": names, "rows": source.rows}).encode())
        seen = 0
        for batch in source.batches():
            seen += batch.num_rows
            _write(b"B", _serialized(batch))
        if seen != source.rows:
            raise Refused(
                "PARQUET_UNREADABLE", BROKEN.format(f"it has {seen:,} rows where its footer says {source.rows:,}")
            )
        _write(b"E")
    except Refused as refused:
        _write(b"F", json.dumps({"code": refused.code, "message": refused.message}).encode())
    except MemoryError:
        message = (
            f"Decoding it takes more than {MAX_MEMORY_BYTES >> 20} MB of memory at once. "
            "Write it with smaller row groups and pages, and upload it again."
        )
        _write(b"F", json.dumps({"code": "PARQUET_TOO_COSTLY", "message": message}).encode())
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, NotImplementedError) as error:
        message = BROKEN.format(" ".join(str(error).split())[:150])
        _write(b"F", json.dumps({"code": "PARQUET_UNREADABLE", "message": message}).encode())


if __name__ == "__main__":
    _limit(int(sys.argv[2]))
    main(sys.argv[1], set(json.loads(sys.argv[3])), set(json.loads(sys.argv[4])))
