"""The lines of a table that have not been read, of which those of the record being read can be put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from datasets.pipeline.reading.csv_dialect import Dialect
from datasets.pipeline.reading.csv_stretches import Stretches
from datasets.pipeline.reading.lines import Lines
from datasets.pipeline.rows import MAX_LINE_BYTES

FEW = 4  # records: to look for a stretch costs as much as to read so many of them one by one
LONGEST_PAUSE = 400  # records that are read one by one in a file that has no stretches


class Incomplete(Exception):
    """The lines read so far end within a quoted field."""


class Unread:
    """Numbered lines, of which those of the record being read can be put back."""

    def __init__(self) -> None:
        self.lines = Lines.of([])
        self.first = 1
        self.at = self._begun = 0
        self._stretches: Stretches | None = None
        self._one_by_one, self._pause = 0, FEW - 1

    def __bool__(self) -> bool:
        return self.at < len(self.lines)

    def add(self, first: int, lines: Lines) -> None:
        left = self.lines.part(self.at, len(self.lines))
        self.lines, self.first = lines.after(left), first - len(left)
        self.at = self._begun = self._one_by_one = 0
        self._stretches = None

    def stretch(self, dialect: Dialect, columns: int, most: int) -> Iterable[tuple[int, tuple[str, ...] | None]]:
        """(number, values) of successive records that are written by the book; the values are None where there are too few or too
        many. Where it ends a record has to be read by itself, and where such stretches are short, some more of them."""
        if not dialect.is_by_the_book:
            return ()
        if self._one_by_one:
            self._one_by_one -= 1
            return ()
        if self._stretches is None:
            self._stretches = Stretches(self.lines, dialect.delimiter, MAX_LINE_BYTES)
        found = self._stretches.from_line(self.at, columns, most)
        if len(found.firsts) >= FEW:
            self._pause = FEW - 1
        else:
            self._one_by_one, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        self.at = found.stop
        return zip((self.first + place for place in found.firsts), found.values, strict=True)

    def line(self, number: int) -> bytes:
        return self.lines[number - self.first]

    def peek(self) -> tuple[int, bytes]:
        return self.first + self.at, self.lines[self.at]

    def take(self) -> tuple[int, bytes]:
        taken = self.peek()
        self.at += 1
        return taken

    def record(self, ended: bool) -> Iterator[str]:
        """The lines that the csv module asks for while it reads one record."""
        self._begun = self.at
        size = 0
        while self and size <= MAX_LINE_BYTES:
            _, line = self.take()
            size += len(line) + 1
            yield line.decode("utf-8", "surrogateescape") + "\n"
        if not ended and size <= MAX_LINE_BYTES:
            raise Incomplete

    def push_back(self) -> None:
        self.at = self._begun
