"""The loops over records of CSV that are written by the book: where their fields are, and the text of those that are wanted.

By the book a quote opens a field, closes it, or is one of two that stand for one. Whatever else there is (a quote elsewhere, bytes that are
no UTF-8, NUL, a carriage return within a line, a record that is too long, or one that does not end) is left to the reader of
single records.

Indices. A line is data[start:stop], and data[stop] is a line feed, behind the last one, too. So a field without quotes ends there at
the latest; within quotes no place behind the last line's end is used. WIDTH bytes are there from wherever that may have gone.
"""

from __future__ import annotations

from typing import Any

from datasets.pipeline.compiled import compiled, part
from datasets.pipeline.reading.scan.utf8 import wide
from datasets.pipeline.reading.scan.vectors import WIDTH, copy, leading, seek

_QUOTE, _NEWLINE, _RETURN, _SPACE, _TAB, _LINE_TAB, _FORM_FEED = b'"\n\r \t\v\f'
_CONTROLS = 0x20  # bytes below it
_TEXT = 1  # all but NUL
_LEAST = -128  # no byte is less


@part
def _is_blank(data: Any, place: int, stop: int) -> bool:
    while place < stop:
        if data[place] not in (_SPACE, _TAB, _RETURN, _NEWLINE, _LINE_TAB, _FORM_FEED):
            return False
        place += 1
    return True


@part
def _closing(data: Any, place: int, limit: int) -> tuple[int, bool]:
    """(the quote that closes a field, or -1; whether there are two in place of one) from the first byte behind the opening one on."""
    twice = False
    while place <= limit:
        place = seek(data, place, limit + 1, _QUOTE, _RETURN, _TEXT)
        if place > limit:
            break
        byte = data[place]
        if byte == _QUOTE:
            if data[place + 1] != _QUOTE:
                return place, twice
            twice = True
            place += 2
        elif byte == _RETURN:
            if data[place + 1] != _NEWLINE:
                break
            place += 2
        else:
            size = wide(data, place)
            if size == 0:
                break
            place += size
    return -1, twice


@part
def _border(data: Any, place: int, delimiter: int) -> int:
    """What ends the field without quotes that begins at `place`: a delimiter or the end of a line; -1 for what it may not hold."""
    while True:
        place = seek(data, place, len(data), delimiter, _QUOTE, _CONTROLS)
        byte = data[place]
        if byte in (delimiter, _NEWLINE):
            return place
        if byte == _RETURN:
            return place if data[place + 1] == _NEWLINE else -1
        if byte == _QUOTE or byte == 0:
            return -1
        if byte < 0x80:
            place += 1
        else:
            size = wide(data, place)
            if size == 0:
                return -1
            place += size


@part
def _record(
    data: Any, place: int, limit: int, delimiter: int, columns: int, begins: Any, ends: Any, twice: Any, at: int
) -> tuple[int, int]:
    """(the line feed that ends the record, or -1; how many fields it has, of which the first `columns` are noted from `at` on)."""
    count = 0
    while True:
        doubled = False
        begin = place
        if data[place] == _QUOTE:
            begin += 1
            end, doubled = _closing(data, begin, limit)
            place = end + 1
        else:
            end = _border(data, place, delimiter)
            place = end
        if end < 0:
            return -1, 0
        if count < columns:
            begins[at + count] = begin
            ends[at + count] = end
            twice[at + count] = doubled
        count += 1
        if data[place] == delimiter:
            place += 1
            continue
        if data[place] == _RETURN:
            place += 1
        return (place if data[place] == _NEWLINE else -1), count


@compiled(
    "int64(Array(uint8, 1, 'C', True), int64[::1], int64[::1], int64, int64, int64, int64, int64, "
    "int64[::1], int64[::1], boolean[::1], int64[::1], int64[::1], int64[::1])"
)
def scan(
    data: Any, starts: Any, stops: Any, line: int, delimiter: int, columns: int, most_bytes: int, most: int,
    begins: Any, ends: Any, twice: Any, firsts: Any, wrong: Any, counts: Any,
) -> int:  # fmt: skip
    """The line from which on something needs a closer look, or there are `most` records, counted together.

    Of records with as many fields as there are columns the first line goes to `firsts`, and each field to `begins`, `ends`, and `twice`
    (whether its quotes are doubled); of others the first line goes to `wrong`. counts holds how many there are of both.
    There is room for most records in each, and for all their fields.
    """
    rows, others = counts[0], counts[1]
    limit = stops[len(stops) - 1] if len(stops) else 0
    while line < len(starts) and rows + others < most:
        begin, stop = starts[line], stops[line]
        if data[begin] <= _SPACE and _is_blank(data, begin, stop):
            line += 1
            continue
        end, fields = _record(data, begin, limit, delimiter, columns, begins, ends, twice, rows * columns)
        if end < 0 or end - begin > most_bytes:
            break
        if fields == columns:
            firsts[rows] = line
            rows += 1
        else:
            wrong[others] = line
            others += 1
        while stops[line] < end:
            line += 1
        line += 1
    counts[0], counts[1] = rows, others
    return line


@compiled(
    "void(Array(uint8, 1, 'C', True), int64[::1], int64[::1], boolean[::1], int64, int64, int64, uint8[::1], int32[::1])"
)
def gather(
    data: Any, begins: Any, ends: Any, twice: Any, rows: int, columns: int, column: int, into: Any, bounds: Any
) -> None:
    """The texts of one column, one behind the other: that of row r is into[bounds[r]:bounds[r + 1]]. `into` has as many bytes as all
    of them are written with, and WIDTH more."""
    at = 0
    for row in range(rows):
        field = row * columns + column
        place, end = begins[field], ends[field]
        if twice[field]:
            while place < end:
                copy(data, place, into, at)
                plain = min(leading(data, place, _QUOTE, _QUOTE, _LEAST), end - place)
                place += plain
                at += plain
                if plain < WIDTH and place < end:
                    into[at] = _QUOTE
                    at += 1
                    place += 2
        else:
            size = end - place
            for ahead in range(0, size, WIDTH):
                copy(data, place + ahead, into, at + ahead)
            at += size
        bounds[row + 1] = at
