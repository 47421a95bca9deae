"""Records of a table as places in a block of it, which a compiled loop has found; texts are made of those that are wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from datasets.pipeline.flags import Flags, Positions
from datasets.pipeline.reading.csv_dialect import Dialect
from datasets.pipeline.reading.csv_lines import Unread
from datasets.pipeline.reading.csv_records import CsvRecords
from datasets.pipeline.reading.lines import PADDING
from datasets.pipeline.reading.scan.csv_loops import gather, scan
from datasets.pipeline.reading.scan.vectors import WIDTH
from datasets.pipeline.rows import BATCH_ROWS, MAX_LINE_BYTES, Reason

assert len(PADDING) >= 2 * WIDTH, "a vector may begin behind the last line, less than another one from its end"


class ScannedRecords(CsvRecords):
    """All of one block. A record that was read by itself is written behind it."""

    def __init__(self, header: list[str], progress: float) -> None:
        super().__init__(header, progress)
        self._data = np.empty(0, np.uint8)
        self._counts = np.zeros(2, np.int64)
        self._begins: Positions = np.empty(0, np.int64)
        self._ends: Positions = np.empty(0, np.int64)
        self._twice: Flags = np.empty(0, np.bool_)
        self._firsts, self._wrong = np.empty(BATCH_ROWS, np.int64), np.empty(BATCH_ROWS, np.int64)
        self._read: list[bytes] = []  # one by one
        self._read_bytes = 0

    @property
    def size(self) -> int:
        return int(self._counts[0])

    @property
    def held_bytes(self) -> int:
        return sum(
            each.nbytes for each in (self._data, self._begins, self._ends, self._twice, self._firsts, self._wrong)
        )

    def take_stretch(self, unread: Unread, dialect: Dialect) -> None:
        if not self._data.size:
            self._begin(unread)
        lines, first, at = unread.lines, unread.first, unread.at
        rejected = len(self.rejections)
        rows, self._counts[1] = self.size, 0
        stop = scan(
            self._data, lines.starts, lines.ends, at, ord(dialect.delimiter), len(self.header), MAX_LINE_BYTES,
            BATCH_ROWS - rejected, self._begins, self._ends, self._twice, self._firsts, self._wrong, self._counts,
        )  # fmt: skip
        self._firsts[rows : self.size] += first
        for place in self._wrong[: self._counts[1]].tolist():
            self.reject(first + place, Reason.WRONG_FIELD_COUNT, lines[place])
        unread.at = stop

    def add(self, line: int, values: Sequence[str]) -> None:
        row = self.size
        place = row * len(self.header)
        begin = self._data.size + self._read_bytes
        for value in values:
            written = value.encode()
            self._begins[place], self._ends[place], self._twice[place] = begin, begin + len(written), False
            self._read.append(written)
            self._read_bytes += len(written)
            begin += len(written)
            place += 1
        self._firsts[row] = line
        self._counts[0] = row + 1

    def column(self, name: str) -> pa.StringArray:
        place, columns = self.header.index(name), len(self.header)
        chosen = slice(place, self.size * columns, columns)
        room = int((self._ends[chosen] - self._begins[chosen]).sum()) + WIDTH
        into, bounds = np.empty(room, np.uint8), np.zeros(self.size + 1, np.int32)
        gather(self._whole(), self._begins, self._ends, self._twice, self.size, columns, place, into, bounds)
        data = into[: int(bounds[-1])].tobytes()
        return pa.StringArray.from_buffers(self.size, pa.py_buffer(bounds), pa.py_buffer(data))

    def numbers(self) -> Positions:
        return self._firsts[: self.size]

    def values(self, place: int) -> list[str]:
        data, columns = self._whole(), len(self.header)
        found = []
        for field in range(place * columns, (place + 1) * columns):
            text = data[self._begins[field] : self._ends[field]].tobytes().decode()
            found.append(text.replace('""', '"') if self._twice[field] else text)
        return found

    def _begin(self, unread: Unread) -> None:
        self._data = unread.lines.padded
        most = min(BATCH_ROWS * len(self.header), self._data.size + len(self.header))  # a field takes a byte at least
        self._begins, self._ends = np.empty(most, np.int64), np.empty(most, np.int64)
        self._twice = np.empty(most, np.bool_)

    def _whole(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """The block, and what was read one by one."""
        if self._read:
            self._data = np.frombuffer(b"".join((self._data.tobytes(), *self._read, PADDING)), np.uint8)
            self._read, self._read_bytes = [], 0
        return self._data
