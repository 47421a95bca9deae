"""CSV with a header: the delimiter is sniffed among , ; tab and |, quotes are doubled, records may span lines.

A record that does not parse costs only its first line: the reader goes back and takes the next line as a new record.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from common.child import ChildError
from datasets.pipeline.reading.csv_dialect import Dialect, sniff
from datasets.pipeline.reading.csv_lines import Incomplete, Unread
from datasets.pipeline.reading.csv_records import CsvRecords
from datasets.pipeline.reading.lines import is_blank, read_blocks
from datasets.pipeline.rows import MAX_LINE_BYTES, Reason, excerpt

MAX_COLUMNS = 1_000


def read_csv(
    path: Path,
    mapped: tuple[str, ...] = (),
    tell: Callable[[Dialect], None] = lambda _: None,
    *,
    is_large: bool = False,
) -> Iterator[CsvRecords]:
    """Batches of rows by the header's names; `tell` hears the dialect. Raises ChildError for a header without use.

    `is_large`: whether a compiled loop pays for its start.
    """
    size, blocks = path.stat().st_size, read_blocks(path)
    header: list[str] = []
    dialect, records = Dialect(), CsvRecords
    unread = Unread()
    if is_large:  # numba takes longer to be imported than a small upload in all
        from datasets.pipeline.reading.scan import csv_table, ends_of_lines

        blocks = read_blocks(path, ends_of_lines.ends_of_lines)
    for first, raw, done in blocks:
        if not header:
            skipped = next((place for place, line in enumerate(raw) if not is_blank(line)), None)
            if skipped is None:
                continue
            head = b"\n".join(raw.part(skipped, skipped + 1_000))[:MAX_LINE_BYTES]
            dialect, header = sniff(head, mapped)
            _check_header(header)
            tell(dialect)
            if is_large and dialect.is_by_the_book:
                records = csv_table.ScannedRecords
            first, raw = first + skipped + 1, raw.part(skipped + 1, len(raw))
        unread.add(first, raw)
        yield from _parse(unread, header, dialect, records, ended=False, progress=done / size)
    yield from _parse(unread, header, dialect, records, ended=True, progress=1.0)


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
    unread: Unread,
    header: list[str],
    dialect: Dialect,
    records: type[CsvRecords],
    *,
    ended: bool,
    progress: float,
) -> Iterator[CsvRecords]:
    batch = records(header, progress)
    csv.field_size_limit(MAX_LINE_BYTES)
    while unread:
        if batch.is_full:
            yield batch
            batch = records(header, progress)
        batch.take_stretch(unread, dialect)
        if not unread or batch.is_full:
            continue
        number, line = unread.peek()
        if is_blank(line) or len(line) > MAX_LINE_BYTES:
            unread.take()
            if line and not line.isspace():
                batch.reject(number, Reason.LINE_TOO_LONG, line)
            continue
        try:
            values = _record(unread, dialect, ended)
        except Incomplete:
            unread.push_back()
            break  # the next batch has the rest of the record
        except csv.Error as error:
            unread.push_back()
            unread.take()
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


def _record(unread: Unread, dialect: Dialect, ended: bool) -> list[str]:
    _, line = unread.peek()
    if dialect.is_plain(line):
        unread.take()
        return line.decode("utf-8", "surrogateescape").removesuffix("\r").split(dialect.delimiter)
    return next(dialect.reader(unread.record(ended), strict=True))
