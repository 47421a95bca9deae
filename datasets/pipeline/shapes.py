"""Records that are written alike, many at once.

A shape is a set of keys. Its decoder is typed (msgspec): a record that it takes has each of these keys at least once, no other
key, and text where text is needed. Whatever it does not take, and whatever it could take more lightly than the strict
decoder does (objects.py), is left to that one, so that both ways end alike:

- Equal keys. As many quotes stand before a colon as there are keys, or more of them: where there are no more than the shape
  has keys, no key can occur twice. A quote behind a backslash ends no key of a shape.
- NUL, which text may not hold: looked for in what was decoded. Lone surrogates and numbers that are not finite or too
  long msgspec refuses, too.
- Deep nesting, and keys in nested objects: those records are walked through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from datasets.pipeline.arrays import Bytes, bytes_of, strings, table
from datasets.pipeline.columns import Columns, chat_of
from datasets.pipeline.rows import MAX_LINE_BYTES, Unusable

MAX_SHAPES = 8
MAX_KEYS = 100
MAX_DEPTH = 50

MAX_SPACES = 64  # between a key and its colon

_QUOTE, _COLON, _BACKSLASH = 0x22, 0x3A, 0x5C
_REFUSED = -MAX_KEYS - 1  # added to the keys of a shape: no record has so few
_REFUSALS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, OverflowError)

Positions = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Part:
    """Rows that one decoder has taken, and where their records stand among those it was given, in order."""

    positions: Positions
    rows: pa.Table


class Shapes:
    """The shapes that have been seen, the first one first; a few of them are nearly all records of an upload."""

    def __init__(self) -> None:
        self._keys: list[frozenset[str]] = []

    def learn(self, fields: Mapping[str, Any]) -> None:
        """Remember how a record is written that the strict decoder has taken."""
        keys = frozenset(fields)
        if len(self._keys) < MAX_SHAPES and keys not in self._keys and _is_plain(keys):
            self._keys.append(keys)

    def decode(self, raws: Sequence[bytes], numbers: Positions, columns: Columns) -> tuple[list[Part], Positions]:
        """The rows of the records that have a known shape; and the positions of all others, for the strict decoder."""
        sizes = np.fromiter(map(len, raws), np.int64, len(raws))
        left = np.flatnonzero(sizes <= MAX_LINE_BYTES)
        too_long = np.flatnonzero(sizes > MAX_LINE_BYTES)
        keys_of = count_keys(raws, sizes)
        parts = []
        for keys in self._keys:
            shape = _shape(tuple(sorted(keys)), columns)
            if shape is None or not len(left):
                continue
            part = shape.decode(raws, numbers, left, keys_of)
            if len(part.positions):
                parts.append(part)
                left = np.setdiff1d(left, part.positions, assume_unique=True)
        return parts, np.sort(np.concatenate([left, too_long]))


def count_keys(raws: Sequence[bytes], sizes: Positions) -> Positions:
    """For each record the number of quotes before a colon, without those behind a backslash.

    A valid record has at most as many keys, if none of its keys ends with a backslash or a quote.
    """
    data = np.frombuffer(b"\n".join((*raws, b"\n")), np.uint8)  # behind a record's last byte there is a newline
    quotes = np.flatnonzero(data == _QUOTE)
    quotes = quotes[data[quotes - 1] != _BACKSLASH]
    after = data[quotes + 1]
    is_key = after == _COLON
    spaced = np.flatnonzero(_is_space(after))
    place = quotes[spaced] + 2
    for _ in range(MAX_SPACES):
        place = np.minimum(place, len(data) - 1)
        seen = data[place]
        is_key[spaced[seen == _COLON]] = True
        more = _is_space(seen)
        spaced, place = spaced[more], place[more] + 1
        if not len(spaced):
            break
    is_key[spaced] = True  # rather one too many
    ends = np.cumsum(sizes + 1)
    owners = np.searchsorted(ends, quotes[is_key], side="right")
    return np.bincount(owners[owners < len(raws)], minlength=len(raws))


def _is_space(values: Bytes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return (values == 0x20) | ((values >= 0x09) & (values <= 0x0D))


@lru_cache(maxsize=64)
def _shape(keys: tuple[str, ...], columns: Columns) -> Shape | None:
    """None where records of these keys make no rows."""
    needed = columns.needed()
    return Shape(keys, columns) if needed and needed.issubset(keys) else None


class Shape:
    """Decodes records that have exactly these keys."""

    def __init__(self, keys: tuple[str, ...], columns: Columns) -> None:
        self._columns = columns
        self._size = len(keys)
        texts = columns.texts()
        names = {key: f"f{number}" for number, key in enumerate(keys)}
        row = msgspec.defstruct(
            "Row",
            [(name, str if key in texts else Any) for key, name in names.items()],
            rename={name: key for key, name in names.items()},
            forbid_unknown_fields=True,
            gc=False,
        )
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode
        self._get = {key: attrgetter(name) for key, name in names.items()}
        self._others = [key for key in keys if key not in texts]

    def decode(self, raws: Sequence[bytes], numbers: Positions, left: Positions, keys_of: Positions) -> Part:
        counts = keys_of[left]
        chosen = left[counts >= self._size if self._others else counts == self._size]
        picked = raws if len(chosen) == len(raws) else [raws[position] for position in chosen.tolist()]
        records, refused = _decode_all(self._decode, picked)
        positions = np.delete(chosen, refused)
        values = {key: list(map(get, records)) for key, get in self._get.items()}
        fine = self._which_are_fine(values, keys_of[positions])
        content, group = _content(self._columns, values, fine), _groups(self._columns, values, fine)
        arrays = {role: strings(texts) for role, texts in content.items()}
        for role, texts in content.items():
            _refuse_nul(arrays[role], texts, fine)
        rows = table({**arrays, "group": group, "line": numbers[positions]}, len(positions))
        if fine.all():
            return Part(positions, rows)
        return Part(positions[fine], rows.filter(pa.array(fine)))

    def _which_are_fine(self, values: Mapping[str, list[Any]], counts: Positions) -> Flags:
        if not self._others:
            return np.ones(len(counts), np.bool_)
        keys = np.full(len(counts), self._size)
        for name in self._others:
            keys += np.fromiter(map(_keys_within, values[name]), np.int64, len(counts))
        return keys == counts


def _decode_all(decode: Callable[[bytes], Any], raws: Iterable[bytes]) -> tuple[list[Any], list[int]]:
    """(what was decoded, positions of what was refused)"""
    records: list[Any] = []
    refused: list[int] = []
    stream = map(decode, raws)
    while True:
        try:
            records.extend(stream)  # up to the one that is refused; those before it are kept
        except _REFUSALS:
            refused.append(len(records) + len(refused))
        else:
            return records, refused


def _keys_within(value: Any) -> int:
    """How many keys its objects have; _REFUSED where the strict decoder has to look at them."""
    if isinstance(value, str):
        return _REFUSED if "\0" in value else 0
    if not isinstance(value, (list, dict)):
        return 0
    found, waiting = 0, [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return _REFUSED
        inner: Iterable[Any] = item
        if isinstance(item, dict):
            found += len(item)
            if any("\0" in key for key in item):
                return _REFUSED
            inner = item.values()
        for one in inner:
            if isinstance(one, str):
                if "\0" in one:
                    return _REFUSED
            elif isinstance(one, (list, dict)):
                waiting.append((one, depth + 1))
    return found


def _content(columns: Columns, values: Mapping[str, list[Any]], fine: Flags) -> dict[str, list[str]]:
    """The texts of the rows by their role; one that cannot be made is "", and not fine any more."""
    if columns.prompt and columns.completion:
        prompts = values[columns.prompt]
        if columns.context and columns.context in values:
            contexts = values[columns.context]
            prompts = [
                _with_context(prompt, context, place, fine)
                for place, (prompt, context) in enumerate(zip(prompts, contexts, strict=True))
            ]
        return {"prompt": prompts, "completion": values[columns.completion]}
    if columns.text:
        return {"text": values[columns.text]}
    assert columns.messages
    chats = [_chat(value, columns.messages, place, fine) for place, value in enumerate(values[columns.messages])]
    return {"messages": chats}


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


def _refuse_nul(array: pa.StringArray, texts: Sequence[str], fine: Flags) -> None:
    seen = bytes_of(array)
    if len(seen) and not seen.min():
        fine &= np.array(["\0" not in text for text in texts], np.bool_)


def _is_plain(keys: frozenset[str]) -> bool:
    """Whether a quote that ends one of the keys can be told from a quote within a text."""
    return 0 < len(keys) <= MAX_KEYS and all(
        key and "\\" not in key and '"' not in key and key.isprintable() for key in keys
    )
