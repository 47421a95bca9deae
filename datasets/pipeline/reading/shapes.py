r"""Records that are written alike, many at once.

A shape is a set of keys. Its decoder is typed (msgspec): a record that it takes has each of these keys at least once, no other
key, and text where text is needed. It takes a run of lines in one call; where it refuses one of them, the run is halved, until
the one that it refuses is alone. Whatever it does not take, and whatever it could take more lightly than the strict decoder
does (objects.py), is left to that one, so that both ways end alike:

- Equal keys, at any depth: of them the decoder keeps the last one. So a record has to hold as many quotes as its keys and texts
  were written with, if none of them is written with an escape of a quote that has none (\u0022).
- NUL, which text may not hold, and which can only be written as \u0000. Lone surrogates and numbers that are not finite or too
  long msgspec refuses, too.
- Deep nesting.
- A run that holds as many records as lines, but not one in each. Each line begins with a brace and ends with one: between two
  lines there is no place within a record, and none of them holds less than a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, pairwise
from operator import attrgetter
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa

from datasets.pipeline.arrays import bounds_of, bytes_of, strings, table
from datasets.pipeline.flags import Counts, Flags, Positions
from datasets.pipeline.reading.columns import Columns, chat_of
from datasets.pipeline.reading.lines import Lines
from datasets.pipeline.rows import MAX_LINE_BYTES, Unusable

MAX_SHAPES = 8
MAX_KEYS = 100
MAX_KEY_BYTES = 10_000  # of all of them: a compiled loop compares each one that stands in a record with those that may
MAX_DEPTH = 50
MAX_RUN = 16  # lines decoded in one call: of those before a broken one half are decoded in vain

_QUOTE, _BACKSLASH, _U, _BEGIN, _END, _RETURN = b'"\\u{}\r'
_UNLIKE_TEXT = (b"0000", b"0022")  # escapes of NUL and of a quote
_REFUSED = -MAX_LINE_BYTES  # added to the quotes of a record: none has so many
_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)


@dataclass(frozen=True)
class Part:
    """Rows that one decoder has taken, and where their records stand among those it was given, in order."""

    positions: Positions
    rows: pa.Table


@dataclass(frozen=True)
class Scanned:
    """What a compiled loop made of records: rows, what a decoder has to look at, and what none would take, each in order."""

    parts: list[Part]
    odd: Positions
    left: Positions


class Scan(Protocol):
    def __call__(
        self, lines: Lines, numbers: Positions, columns: Columns, shapes: Iterable[frozenset[str]]
    ) -> Scanned | None: ...


class Shapes:
    """The shapes that have been seen, the first one first; a few of them are nearly all records of an upload.

    Where a compiled loop is given, it goes over all records first, and the decoders get what it leaves to them.
    """

    def __init__(self, scan: Scan | None = None) -> None:
        self._keys: list[frozenset[str]] = []
        self._scan = scan

    def learn(self, fields: Mapping[str, Any]) -> None:
        """Remember how a record is written that the strict decoder has taken."""
        keys = frozenset(fields)
        if len(self._keys) < MAX_SHAPES and keys not in self._keys and _is_plain(keys):
            self._keys.append(keys)

    def decode(self, lines: Lines, numbers: Positions, columns: Columns) -> tuple[list[Part], Positions]:
        """The rows of the records that have a known shape; and the positions of all others, for the strict decoder."""
        scanned = self._scan(lines, numbers, columns, self._keys) if self._scan else None
        if scanned is None:
            return self._decode(lines, numbers, columns)
        odd = scanned.odd
        if not len(odd):
            return scanned.parts, scanned.left
        more, left = self._decode(Lines.of(lines.at(odd)), numbers[odd], columns)
        parts = [*scanned.parts, *(Part(odd[part.positions], part.rows) for part in more)]
        return parts, np.sort(np.concatenate([scanned.left, odd[left]]))

    def _decode(self, lines: Lines, numbers: Positions, columns: Columns) -> tuple[list[Part], Positions]:
        waiting = (lines.sizes > 0) & (lines.sizes <= MAX_LINE_BYTES)
        waiting[_unlike_text(lines)] = False
        left, given = np.flatnonzero(waiting), np.ones(len(lines), np.bool_)
        quotes = Counts(lines.codes == _QUOTE)
        parts = []
        for keys in self._keys:
            shape = _shape(tuple(sorted(keys)), columns)
            if shape is None or not len(left):
                continue
            part = shape.decode(lines, numbers, left, quotes)
            if len(part.positions):
                parts.append(part)
                given[part.positions] = False
                left = left[given[left]]
        return parts, np.flatnonzero(given)


def _unlike_text(lines: Lines) -> Positions:
    """The lines with an escape that stands for NUL or for a quote."""
    codes = lines.codes
    escapes = np.flatnonzero((codes[:-1] == _BACKSLASH) & (codes[1:] == _U)) + 2
    if not len(escapes):
        return escapes
    escapes = escapes[escapes <= len(codes) - 4]
    digits = codes[escapes[:, None] + np.arange(4)]
    found = np.zeros(len(escapes), np.bool_)
    for each in _UNLIKE_TEXT:
        found |= (digits == list(each)).all(axis=1)
    return np.unique(np.searchsorted(lines.starts, escapes[found], side="right") - 1)


@lru_cache(maxsize=64)
def _shape(keys: tuple[str, ...], columns: Columns) -> Shape | None:
    """None where records of these keys make no rows."""
    needed = columns.needed()
    return Shape(keys, columns) if needed and needed.issubset(keys) else None


class Shape:
    """Decodes records that have exactly these keys."""

    def __init__(self, keys: tuple[str, ...], columns: Columns) -> None:
        self._columns = columns
        texts = columns.texts()
        names = {key: f"f{number}" for number, key in enumerate(keys)}
        row = msgspec.defstruct(
            "Row",
            [(name, str if key in texts else Any) for key, name in names.items()],
            rename={name: key for key, name in names.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decoder = msgspec.json.Decoder(row)
        self._get = {key: attrgetter(name) for key, name in names.items()}
        self._texts = [key for key in keys if key in texts]
        self._others = [key for key in keys if key not in texts]
        self._quotes = 2 * len(keys) + 2 * len(self._texts)  # of its keys, and around its texts

    def decode(self, lines: Lines, numbers: Positions, left: Positions, quotes: Counts) -> Part:
        """The rows of those of the lines at `left` that are records of this shape."""
        records, taken = self._decoded(lines, left)
        values = {key: list(map(get, records)) for key, get in self._get.items()}
        texts = {key: strings(values[key]) for key in self._texts}
        fine = self._quotes_of(texts, values, len(taken)) == quotes.between(lines.starts[taken], lines.ends[taken])
        group = _groups(self._columns, values, fine)
        content = _content(self._columns, texts, values, fine)
        rows = table({**content, "group": group, "line": numbers[taken]}, len(taken))
        if fine.all():
            return Part(taken, rows)
        return Part(taken[fine], rows.filter(pa.array(fine)))

    def _decoded(self, lines: Lines, left: Positions) -> tuple[list[Any], Positions]:
        """(records, their positions) of what is not refused."""
        data, starts, ends = memoryview(lines.data), lines.starts[left].tolist(), lines.ends[left].tolist()
        records: list[Any] = []
        taken = np.ones(len(left), np.bool_)
        for begin, stop in _runs(lines, left):
            size = stop - begin
            while begin < stop:
                size = min(size, MAX_RUN, stop - begin)
                piece = data[starts[begin] : ends[begin + size - 1]]
                try:
                    found = self._decoder.decode_lines(piece) if size > 1 else [self._decoder.decode(piece)]
                except _REFUSALS:
                    found = []
                if len(found) == size:
                    records += found
                    begin += size
                    size *= 2
                elif size > 1:
                    size //= 2
                else:
                    taken[begin] = False
                    begin += 1
        return records, left[taken]

    def _quotes_of(self, texts: Mapping[str, pa.StringArray], values: Mapping[str, list[Any]], size: int) -> Positions:
        """How many quotes each record is written with, if it has no more than what was decoded."""
        quotes = np.full(size, self._quotes)
        for array in texts.values():
            bounds = bounds_of(array).astype(np.int64)
            quotes += np.diff(Counts(bytes_of(array) == _QUOTE).up_to(bounds - bounds[0]))
        for key in self._others:
            quotes += np.fromiter(map(_quotes_within, values[key]), np.int64, size)
        return quotes


def _runs(lines: Lines, left: Positions) -> Iterable[tuple[int, int]]:
    """Which of the lines at `left` may be decoded in one call: those that stand together, and begin and end with a brace."""
    codes, starts, ends = lines.codes, lines.starts[left], lines.ends[left]
    last = ends - 1 - (codes[ends - 1] == _RETURN)
    framed = (codes[starts] == _BEGIN) & (codes[last] == _END)
    together = framed[1:] & framed[:-1] & (np.diff(left) == 1)
    return pairwise([0, *(np.flatnonzero(~together) + 1).tolist(), len(left)])


def _quotes_within(value: Any) -> int:
    """How many quotes it is written with; _REFUSED where the strict decoder has to look at it."""
    if isinstance(value, str):
        return 2 + value.count('"')
    if not isinstance(value, (list, dict)):
        return 0
    found, waiting = 0, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return _REFUSED
        for one in chain(item, item.values()) if isinstance(item, dict) else item:
            if isinstance(one, str):
                found += 2 + one.count('"')
            elif isinstance(one, (list, dict)):
                waiting.append((one, depth + 1))
    return found


def _content(
    columns: Columns, texts: Mapping[str, pa.StringArray], values: Mapping[str, list[Any]], fine: Flags
) -> dict[str, pa.StringArray]:
    """The texts of the rows by their role; one that cannot be made is "", and not fine any more."""
    if columns.prompt and columns.completion:
        prompts = texts[columns.prompt]
        if columns.context and columns.context in values:
            pairs = zip(values[columns.prompt], values[columns.context], strict=True)
            prompts = strings([_with_context(*pair, place, fine) for place, pair in enumerate(pairs)])
        return {"prompt": prompts, "completion": texts[columns.completion]}
    if columns.text:
        return {"text": texts[columns.text]}
    assert columns.messages
    chats = [_chat(value, columns.messages, place, fine) for place, value in enumerate(values[columns.messages])]
    return {"messages": strings(chats)}


def _with_context(prompt: str, context: Any, place: int, fine: Flags) -> str:
    if context is None or context == "":
        return prompt
    if isinstance(context, str):
        return f"{prompt}\n\n{context}"
    fine[place] = False
    return ""


def _chat(value: Any, column: str, place: int, fine: Flags) -> str:
    if fine[place]:
        try:
            return chat_of({column: value}, column)
        except Unusable:
            fine[place] = False
    return ""


def _groups(columns: Columns, values: Mapping[str, list[Any]], fine: Flags) -> list[str | None] | None:
    if not columns.group or columns.group not in values:
        return None
    groups: list[str | None] = []
    for place, value in enumerate(values[columns.group]):
        if value is None or value == "":
            groups.append(None)
        elif isinstance(value, str):
            groups.append(value)
        elif isinstance(value, int) and abs(value) < 2**63:
            groups.append(str(value))
        else:
            groups.append(None)
            fine[place] = False
    return groups


def _is_plain(keys: frozenset[str]) -> bool:
    """Whether msgspec takes such keys, each is written with two quotes, and to compare them costs no more than to read a record."""
    return (
        0 < len(keys) <= MAX_KEYS
        and all(key and "\\" not in key and '"' not in key and key.isprintable() for key in keys)
        and sum(len(key.encode()) for key in keys) <= MAX_KEY_BYTES
    )
