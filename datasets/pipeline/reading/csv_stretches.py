"""Records of CSV that are written by the book, a whole stretch of them at once.

Within a stretch each quote either opens a field, and stands behind a border, or closes one, and stands before a border, or is one of
two that stand for one: so an even number of quotes stands before what separates fields and records. What cannot be told by that (a
quote elsewhere, bytes that are no UTF-8, NUL, a carriage return within a record, a record that is too long) ends the stretch, and
the reader of single records takes what is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from datasets.pipeline.flags import Counts, Flags, Positions
from datasets.pipeline.reading.lines import Lines, is_blank

_QUOTE, _NEWLINE, _RETURN, _SPACE, _NUL = b'"\n\r \0'
_NOWHERE = 1 << 62  # behind all bytes
_TWICE, _ONCE = '""', '"'


@dataclass(frozen=True)
class Stretch:
    """Successive records without blank lines: the line that each begins with, and its values, or None where there are too few or many."""

    stop: int  # the line behind the last one
    firsts: list[int]
    values: list[tuple[str, ...] | None]


class Stretches:
    """Looks at all lines once; then stretches can be had from any of them."""

    def __init__(self, lines: Lines, delimiter: str, max_bytes: int) -> None:
        self._max_bytes = max_bytes  # of a record
        self._lines = lines
        self._codes = codes = np.frombuffer(lines.data + b"\n\n", np.uint8)
        is_quote, is_border = codes == _QUOTE, codes == ord(delimiter)
        delimiters, places = np.flatnonzero(is_border), np.flatnonzero(is_quote)
        is_border |= is_quote
        is_border |= codes == _NEWLINE
        self._quotes = Counts(is_quote)
        self._before = np.concatenate([[0], self._quotes.up_to(lines.ends)]) & 1  # each line, and at the end
        before_delimiters = self._quotes.up_to(delimiters) & 1
        # whether an odd number of quotes stands before a stretch says which of the others are within its fields
        self._delimiters = [delimiters[before_delimiters == odd] for odd in (0, 1)]
        self._ends = [np.flatnonzero(self._before[1:] == odd) for odd in (0, 1)]
        self._wrong, self._others = self._wrong_quotes(places, is_border), self._no_text()
        self._text = lines.data.decode() if lines.data.isascii() else None

    def from_line(self, first: int, columns: int, most: int) -> Stretch:
        """At most so many records from this line on; of none, where the first one needs a closer look."""
        firsts, lasts = self._records(first, most)
        if not len(firsts):
            return Stretch(first, [], [])
        starts, stops = self._lines.starts[firsts], self._lines.ends[lasts]
        stops = stops - ((self._codes[stops - 1] == _RETURN) & (stops > starts))
        seen = ~self._are_blank(starts, stops)
        values = self._values(starts[seen], stops[seen], columns, int(self._before[first]))
        return Stretch(int(lasts[-1]) + 1, firsts[seen].tolist(), values)

    def _records(self, first: int, most: int) -> tuple[Positions, Positions]:
        """The first and the last line of each record until something needs a closer look."""
        lines, odd = self._lines, int(self._before[first])
        ends, start = self._ends[odd], lines.starts[first]
        bound = min(_first_from(start, self._wrong[odd]), _first_from(start, self._others))
        stop = int(np.searchsorted(lines.ends, bound, side="right"))
        begin = int(np.searchsorted(ends, first))
        lasts = ends[begin : min(int(np.searchsorted(ends, stop)), begin + most)]
        firsts = np.concatenate([[first], lasts + 1])[:-1]
        too_long = lines.ends[lasts] - lines.starts[firsts] > self._max_bytes
        fine = int(too_long.argmax()) if too_long.any() else len(lasts)
        return firsts[:fine], lasts[:fine]

    def _values(self, starts: Positions, stops: Positions, columns: int, odd: int) -> list[tuple[str, ...] | None]:
        delimiters = self._delimiters[odd]
        before = np.searchsorted(delimiters, starts)
        right = np.searchsorted(delimiters, stops) - before == columns - 1
        cuts = delimiters[before[right][:, None] + np.arange(columns - 1)]
        begins = np.concatenate([starts[right][:, None], cuts + 1], axis=1).ravel()
        ends = np.concatenate([cuts, stops[right][:, None]], axis=1).ravel()
        quoted = self._codes[begins] == _QUOTE
        begins, ends = begins + quoted, ends - quoted
        bounds = zip(begins.tolist(), ends.tolist(), strict=True)
        if self._text is not None:
            texts = [self._text[begin:end] for begin, end in bounds]
        else:
            texts = [self._lines.data[begin:end].decode() for begin, end in bounds]
        for place in np.flatnonzero(self._quotes.between(begins, ends)).tolist():
            texts[place] = texts[place].replace(_TWICE, _ONCE)
        records = zip(*[iter(texts)] * columns, strict=True)
        return [next(records) if is_right else None for is_right in right.tolist()]

    def _are_blank(self, starts: Positions, stops: Positions) -> Flags:
        blank = starts == stops
        for place in np.flatnonzero(self._codes[starts] <= _SPACE).tolist():
            blank[place] = is_blank(self._lines.data[starts[place] : stops[place]])
        return blank

    def _wrong_quotes(self, places: Positions, is_border: Flags) -> list[Positions]:
        """The quotes that are none by the book, if those with an even number open fields, and if those with an odd one do."""
        may_open = is_border[places - 1]  # before the first byte there is the last one: a line feed
        before_end = (self._codes[places + 1] == _RETURN) & (self._codes[places + 2] == _NEWLINE)
        may_close = is_border[places + 1] | before_end
        number = np.arange(len(places)) & 1
        return [places[~np.where(number == odd, may_open, may_close)] for odd in (0, 1)]

    def _no_text(self) -> Positions:
        """Where something stands that a stretch cannot hold; of bytes that are no UTF-8 the first ones of each line."""
        data = self._lines.data
        found = [] if data.isascii() else list(_not_utf8(data))
        if b"\0" in data:
            found += np.flatnonzero(self._codes == _NUL).tolist()
        if b"\r" in data:
            found += np.flatnonzero((self._codes[:-1] == _RETURN) & (self._codes[1:] != _NEWLINE)).tolist()
        return np.array(sorted(found), np.int64)


def _first_from(start: int, places: Positions) -> int:
    first = int(np.searchsorted(places, start))
    return int(places[first]) if first < len(places) else _NOWHERE


def _not_utf8(data: bytes) -> Iterator[int]:
    place, view = 0, memoryview(data)
    while True:
        try:
            str(view[place:], "utf-8")
        except UnicodeDecodeError as error:
            yield place + error.start
            place = data.find(b"\n", place + error.start) + 1
            if not place:
                return
        else:
            return
