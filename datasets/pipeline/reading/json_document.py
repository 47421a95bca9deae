"""One JSON document: an array of objects, an object with one array of them, or a single object.

A tokenizer finds where each row begins and ends in the mapped file, and each row is decoded by itself. So memory is
bounded by a row, and a broken row costs only itself.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from pathlib import Path

from common.child import ChildError
from datasets.pipeline.reading.columns import MESSAGES_NAMES
from datasets.pipeline.reading.json_rows import JsonRecords
from datasets.pipeline.reading.lines import BATCH_BYTES, BOM, Lines, is_blank
from datasets.pipeline.reading.objects import decode_value
from datasets.pipeline.reading.shapes import Shapes
from datasets.pipeline.rows import BATCH_ROWS, MAX_LINE_BYTES, Unusable, excerpt

# A whole string, a quote that no other closes, or punctuation. Possessive, so that no input makes it backtrack.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|["\[\]{},]', re.DOTALL)
_KEY_BEFORE_ARRAY = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*+:\s*+\Z', re.DOTALL)


def read_json(path: Path) -> Iterator[JsonRecords]:
    """Batches of records. Raises ChildError where the document as a whole is not what it should be."""
    shapes = Shapes()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, end = _rows_place(data)
        lines = _LineCounter(data)
        raws: list[bytes] = []
        numbers: list[int] = []
        batch_start = start
        for begin, stop in _elements(data, start, end):
            raw = data[begin : min(stop, begin + MAX_LINE_BYTES + 1)].strip()
            if stop - begin > MAX_LINE_BYTES:
                raw = raw.ljust(MAX_LINE_BYTES + 1, b"\n")  # as long as it takes to be refused for its length
            if is_blank(raw):
                continue
            if len(raws) == BATCH_ROWS or (raws and stop - batch_start >= BATCH_BYTES):
                yield JsonRecords(Lines.of(raws), numbers, begin / len(data), shapes)
                raws, numbers, batch_start = [], [], begin
            raws.append(raw)
            numbers.append(lines.at(begin + _leading_space(data, begin, stop)))
        yield JsonRecords(Lines.of(raws), numbers, 1.0, shapes)


def _elements(data: mmap.mmap, start: int, end: int | None) -> Iterator[tuple[int, int]]:
    """(begin, stop) of each element of the array whose `[` is at start - 1, or of the one object that ends at `end`.

    What follows the document, and what a cut-off one leaves open, comes as a last element.
    """
    if end is not None:
        yield start, end
        yield end, len(data)
        return
    depth, begin = 0, start
    for token in _TOKEN.finditer(data, start):
        kind = token[0][:1]
        if kind in b"[{":
            depth += 1
        elif kind in b"]}":
            depth -= 1
            if depth < 0:
                yield begin, token.start()
                if data[_first(data) : start] != b"[":
                    return  # what follows is the rest of the object around the array
                begin = token.end()
                break
        elif kind == b"," and depth == 0:
            yield begin, token.start()
            begin = token.end()
        elif token[0] == b'"':
            break  # a string that nothing closes: no boundary behind it can be trusted
    yield begin, len(data)


def _rows_place(data: mmap.mmap) -> tuple[int, int | None]:
    """Where the rows begin: after the `[` of the one array, or (begin, end) of an object that is a row itself."""
    first = _first(data)
    if data[first : first + 1] == b"[":
        return first + 1, None
    depth, last, arrays = 0, first, []
    for token in _TOKEN.finditer(data, first):
        kind = token[0][:1]
        if kind == b"[" and depth == 1:
            arrays.append((token.end(), _key(data, last, token.start())))
        if kind in b"[{":
            depth += 1
        elif kind in b"]}":
            depth -= 1
            if depth == 0:
                last = token.end()
                break
        if kind in b'",' and depth == 1:
            last = token.start()
        if len(arrays) > 1:
            break
    arrays = [(place, key) for place, key in arrays if key.lower() not in MESSAGES_NAMES]
    if len(arrays) > 1:
        names = ", ".join(key for _, key in arrays)
        raise ChildError(
            "FORMAT_MISMATCH",
            f"The JSON object has more than one array ({names}), and only one can hold the rows. "
            "Upload that array alone.",
        )
    if arrays:
        return arrays[0][0], None
    return first, last if depth == 0 else len(data)


def _first(data: mmap.mmap) -> int:
    after_mark = len(BOM) if data[: len(BOM)] == BOM else 0
    return after_mark + _leading_space(data, after_mark, len(data))


def _key(data: mmap.mmap, last: int, bracket: int) -> str:
    found = _KEY_BEFORE_ARRAY.search(data[max(last, bracket - 10_000) : bracket])
    if not found:
        return "?"
    try:
        return excerpt(str(decode_value(found[1])), 100)
    except Unusable:
        return "?"


def _leading_space(data: mmap.mmap, begin: int, stop: int) -> int:
    seen = 0
    while begin + seen < stop:
        piece = data[begin + seen : min(stop, begin + seen + 4096)]
        rest = piece.lstrip()
        if rest:
            return seen + len(piece) - len(rest)
        seen += len(piece)
    return seen


class _LineCounter:
    """The line, counted from 1, of ever later places."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._place, self._line = data, 0, 1

    def at(self, place: int) -> int:
        while self._place < place:
            piece = self._data[self._place : min(place, self._place + BATCH_BYTES)]
            self._line += piece.count(b"\n")
            self._place += len(piece)
        return self._line
