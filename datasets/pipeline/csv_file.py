"""CSV with a header: the delimiter is sniffed among , ; tab and |, quotes are doubled, records may span lines.

A record that does not parse costs only its first line: the reader goes back and takes the next line as a new record.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from common.child import ChildError
from datasets.pipeline.arrays import strings, table
from datasets.pipeline.columns import Columns
from datasets.pipeline.csv_dialect import Dialect, sniff
from datasets.pipeline.csv_stretches import Stretches
from datasets.pipeline.lines import Lines, is_blank, read_blocks
from datasets.pipeline.rows import (
    BATCH_ROWS,
    MAX_LINE_BYTES,
    ROWS,
    Parsed,
    Reason,
    Rejection,
    Unusable,
    excerpt,
    parse_rejection,
    unfit,
)

MAX_COLUMNS = 1_000
FEW = 4  # records: to look for a stretch costs as much as to read so many of them one by one
LONGEST_PAUSE = 400  # records that are read one by one in a file that has no stretches


def read_csv(
    path: Path, mapped: tuple[str, ...] = (), tell: Callable[[Dialect], None] = lambda _: None
) -> Iterator[CsvRecords]:
    """Batches of rows by the header's names; `tell` hears the dialect. Raises ChildError for a header without use."""
    size = path.stat().st_size
    header: list[str] = []
    dialect = Dialect()
    lines = _PushBack()
    for first, raw, done in read_blocks(path):
        if not header:
            skipped = next((place for place, line in enumerate(raw) if not is_blank(line)), None)
            if skipped is None:
                continue
            head = b"\n".join(raw.part(skipped, skipped + 1_000))[:MAX_LINE_BYTES]
            dialect, header = sniff(head, mapped)
            _check_header(header)
            tell(dialect)
            first, raw = first + skipped + 1, raw.part(skipped + 1, len(raw))
        lines.add(first, raw)
        yield from _parse(lines, header, dialect, ended=False, progress=done / size)
    yield from _parse(lines, header, dialect, ended=True, progress=1.0)


def _check_header(header: list[str]) -> None:
    if not header:
        raise ChildError("FORMAT_MISMATCH", "The first line is no header of a CSV file: its quotes do not match.")
    if len(header) > MAX_COLUMNS:
        raise ChildError(
            "TOO_MANY_COLUMNS", f"The header has {len(header):,} columns; at most {MAX_COLUMNS:,} can be read."
        )
    twice = next((name for place, name in enumerate(header) if name and name in header[:place]), None)
    if twice is not None:
        raise ChildError("DUPLICATE_COLUMN", f"The header has two columns named '{excerpt(twice, 60)}'. Rename one.")


def _parse(
    lines: _PushBack, header: list[str], dialect: Dialect, *, ended: bool, progress: float
) -> Iterator[CsvRecords]:
    batch = CsvRecords(header, progress)
    csv.field_size_limit(MAX_LINE_BYTES)
    while lines:
        if batch.is_full:
            yield batch
            batch = CsvRecords(header, progress)
        for number, found in lines.stretch(dialect, len(header), batch.room):
            if found is None:
                batch.reject(number, Reason.WRONG_FIELD_COUNT, lines.at(number))
            else:
                batch.add(number, found)
        if not lines or batch.is_full:
            continue
        number, line = lines.peek()
        if is_blank(line) or len(line) > MAX_LINE_BYTES:
            lines.take()
            if line and not line.isspace():
                batch.reject(number, Reason.LINE_TOO_LONG, line)
            continue
        try:
            values = _record(lines, dialect, ended)
        except _Incomplete:
            lines.push_back()
            break  # the next batch has the rest of the record
        except csv.Error as error:
            lines.push_back()
            lines.take()
            too_long = "field limit" in str(error)
            batch.reject(number, Reason.LINE_TOO_LONG if too_long else Reason.BAD_QUOTES, line)
            continue
        if any("\udc80" <= character <= "\udcff" for value in values if not value.isascii() for character in value):
            batch.reject(number, Reason.NOT_UTF8, line)
        elif len(values) != len(header):
            batch.reject(number, Reason.WRONG_FIELD_COUNT, line)
        elif any("\0" in value for value in values):
            field = next(name for name, value in zip(header, values, strict=True) if "\0" in value)
            batch.reject(number, Reason.NUL_CHARACTER, line, field=field)
        else:
            batch.add(number, values)
    yield batch


class CsvRecords:
    """Records of a table, and what is none of its lines."""

    def __init__(self, header: list[str], progress: float) -> None:
        self.progress = progress
        self._header = header
        self._lines: list[int] = []
        self._values: list[Sequence[str]] = []
        self._rejections: list[Rejection] = []

    @property
    def room(self) -> int:
        return BATCH_ROWS - len(self._lines) - len(self._rejections)

    @property
    def is_full(self) -> bool:
        return self.room <= 0

    def add(self, line: int, values: Sequence[str]) -> None:
        self._lines.append(line)
        self._values.append(values)

    def reject(self, line: int, reason: Reason, seen: bytes, *, field: str | None = None) -> None:
        self._rejections.append(parse_rejection(line, reason, seen, field=field))

    def sample(self, most: int) -> list[Mapping[str, Any]]:
        return [self._fields(place) for place in range(min(most, len(self._lines)))]

    def parsed(self, columns: Columns) -> Parsed:
        if columns.messages or not columns.needed().issubset(self._header):
            return self._one_by_one(columns)
        prompts = self._column(columns.prompt)
        if prompts and columns.context in self._header:
            contexts = self._column(columns.context)
            prompts = [f"{one}\n\n{more}" if more else one for one, more in zip(prompts, contexts, strict=True)]
        content = {
            "prompt": prompts,
            "completion": self._column(columns.completion),
            "text": self._column(columns.text),
        }
        arrays: dict[str, Any] = {role: strings(values) for role, values in content.items() if values}
        if columns.group in self._header:
            arrays["group"] = [value or None for value in self._column(columns.group)]
        rows = table({**arrays, "line": self._lines}, len(self._lines))
        return Parsed(rows, [], self._rejections, self._fields)

    def _one_by_one(self, columns: Columns) -> Parsed:
        """Chats; and records of a zip's member that lacks what the columns of another one have."""
        rows, places, without_row = [], [], []
        for place, line in enumerate(self._lines):
            try:
                rows.append({**columns.row(self._fields(place)), "line": line})
                places.append(place)
            except Unusable as error:
                without_row.append(unfit(line, error, self._fields(place)))
        kept = pa.Table.from_pylist(rows, schema=ROWS)
        return Parsed(kept, without_row, self._rejections, lambda row: self._fields(places[row]))

    def _fields(self, place: int) -> dict[str, str]:
        return dict(zip(self._header, self._values[place], strict=True))

    def _column(self, name: str | None) -> list[str]:
        if name is None:
            return []
        place = self._header.index(name)
        return [values[place] for values in self._values]


def _record(lines: _PushBack, dialect: Dialect, ended: bool) -> list[str]:
    _, line = lines.peek()
    if dialect.is_plain(line):
        lines.take()
        return line.decode("utf-8", "surrogateescape").removesuffix("\r").split(dialect.delimiter)
    return next(dialect.reader(lines.record(ended), strict=True))


class _Incomplete(Exception):
    """The lines read so far end within a quoted field."""


class _PushBack:
    """Numbered lines, of which those of the record being read can be put back."""

    def __init__(self) -> None:
        self._lines = Lines.of([])
        self._first = 1
        self._at = self._begun = 0
        self._stretches: Stretches | None = None
        self._one_by_one, self._pause = 0, FEW - 1

    def __bool__(self) -> bool:
        return self._at < len(self._lines)

    def add(self, first: int, lines: Lines) -> None:
        left = self._lines.part(self._at, len(self._lines))
        self._lines, self._first = lines.after(left), first - len(left)
        self._at = self._begun = self._one_by_one = 0
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
            self._stretches = Stretches(self._lines, dialect.delimiter, MAX_LINE_BYTES)
        found = self._stretches.from_line(self._at, columns, most)
        if len(found.firsts) >= FEW:
            self._pause = FEW - 1
        else:
            self._one_by_one, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        self._at = found.stop
        return zip((self._first + place for place in found.firsts), found.values, strict=True)

    def at(self, number: int) -> bytes:
        return self._lines[number - self._first]

    def peek(self) -> tuple[int, bytes]:
        return self._first + self._at, self._lines[self._at]

    def take(self) -> tuple[int, bytes]:
        taken = self.peek()
        self._at += 1
        return taken

    def record(self, ended: bool) -> Iterator[str]:
        """The lines that the csv module asks for while it reads one record."""
        self._begun = self._at
        size = 0
        while self and size <= MAX_LINE_BYTES:
            _, line = self.take()
            size += len(line) + 1
            yield line.decode("utf-8", "surrogateescape") + "\n"
        if not ended and size <= MAX_LINE_BYTES:
            raise _Incomplete

    def push_back(self) -> None:
        self._at = self._begun
