"""Text as one would have typed it: Unicode NFC, \\n at each line's end, nothing invisible, no spaces before a line break.

What is clean already costs a look. What is not keeps its meaning as code:

- Indentation is never touched, nor is the end of a text: where a prompt ends, its completion goes on.
- NFC also holds within string literals, because nothing tells code from prose in a table; a program that needs a decomposed
  literal writes it as an escape, which stays. Python itself normalises identifiers.
- Python source that was uploaded as such is left alone: its line ends are \\n already, and a space or an accent within a
  literal is its author's business.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.arrays import bounds_of, bytes_of
from datasets.pipeline.excerpts import are_shown
from datasets.pipeline.flags import Positions
from datasets.pipeline.pii import Kind, NameFinder
from datasets.pipeline.rows import CONTENT, EXAMPLES, Example, Outcome, excerpt, marked

EXAMPLE_CONTEXT = 20  # characters before what was changed
EXCERPT_BYTES = 100
LOOKED_AT = 2 * EXAMPLES  # of a batch
MOST_OF_ONE = 3  # characters that NFC makes of one

_LINE_END = re.compile(r"\r\n?")
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff]")
_TAB, _NEWLINE, _SPACE, _BACKSLASH = b"\t\n \\"
_ESCAPES = np.frombuffer(b"rbfut", np.uint8)  # in a chat, which is JSON


def clean(text: str) -> str:
    """The text, cleaned; cleaning that again changes nothing."""
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
    return unicodedata.normalize("NFC", _strip_before_breaks(text))


def clean_chat(messages: str) -> str:
    """A chat, as rows hold it, with the contents of its messages cleaned."""
    chat = [{**message, "content": clean(message["content"])} for message in json.loads(messages)]
    return json.dumps(chat, ensure_ascii=False, separators=(",", ":"))


def _strip_before_breaks(text: str) -> str:
    """Line by line, because a pattern would try each of a thousand spaces as the first."""
    if " \n" not in text and "\t\n" not in text:
        return text
    *lines, last = text.split("\n")
    return "\n".join([*(line.rstrip(" \t") for line in lines), last])


@dataclass(frozen=True)
class Clean:
    """Cleans the text of rows, unless they are source code that came as such.

    `is_large`: whether a compiled loop pays for its start. `hidden`: what no example of a change may show.
    """

    is_source: bool
    is_large: bool = False
    hidden: frozenset[Kind] = frozenset()
    names: NameFinder | None = None

    name = "clean"

    def begin(self) -> Callable[[pa.Table], Outcome]:
        if self.is_source:
            return Outcome
        if self.is_large:
            from datasets.pipeline.reading.scan.suspects import suspects

            return partial(_apply, suspects, _Examples(self.hidden, self.names))
        return partial(_apply, _suspects_among_texts, _Examples(self.hidden, self.names))


def _apply(suspects: Callable[[pa.StringArray], list[int]], examples: _Examples, rows: pa.Table) -> Outcome:
    changed = np.zeros(rows.num_rows, np.bool_)
    before = rows
    for place, name in enumerate(CONTENT):
        if rows[name].null_count == rows.num_rows:
            continue
        column = rows[name].combine_chunks()
        is_chat = name == "messages"
        found = _cleaned(
            column, clean_chat if is_chat else clean, _suspects(column, is_json=True) if is_chat else suspects(column)
        )
        if found:
            mask = np.zeros(len(column), np.bool_)
            mask[list(found)] = True
            texts = pc.replace_with_mask(column, pa.array(mask), pa.array(found.values(), pa.string()))
            rows = rows.set_column(place, rows.schema.field(name), texts)
            changed |= mask
    places = np.flatnonzero(changed)
    shown = examples.of(before, rows, places)
    if len(places):
        rows = marked(rows, pa.array(changed), Clean.name)
    return Outcome(rows, changed=len(places), examples=shown)


def _cleaned(column: pa.StringArray, clean_one: Callable[[str], str], suspects: list[int]) -> dict[int, str]:
    """What cleaning changes, by place, in order."""
    found = {}
    for place, text in zip(suspects, column.take(pa.array(suspects, pa.int64())).to_pylist(), strict=True):
        cleaned = clean_one(text)
        if cleaned != text:
            found[place] = cleaned
    return found


def _suspects_among_texts(column: pa.StringArray) -> list[int]:
    return _suspects(column, is_json=False)


def _suspects(column: pa.StringArray, is_json: bool) -> list[int]:
    """Places of texts that may be unclean: each that is, and few others."""
    data = bytes_of(column)
    if not len(data):
        return []
    after = np.append(data[1:], np.uint8(0))
    odd = ((data < 0x20) & (data != _TAB) & (data != _NEWLINE)) | (data == 0x7F)
    if is_json:
        odd |= (data == _BACKSLASH) & np.isin(after, _ESCAPES)
        after_space = np.append(np.uint8(0), data[:-1]) == _SPACE
        odd |= after_space & (data == _BACKSLASH) & (after == ord("n"))
    else:
        odd |= ((data == _SPACE) | (data == _TAB)) & (after == _NEWLINE)
    if int(data.max()) >= 0x80:
        # from U+0300 on characters compose, below it none does; the controls from U+0080 to U+009F; U+FEFF is beyond
        odd |= (data >= 0xCC) | ((data == 0xC2) & (after < 0xA0))
    places = np.searchsorted(bounds_of(column)[1:] - bounds_of(column)[0], np.flatnonzero(odd), side="right")
    suspects: list[int] = np.unique(places).tolist()
    return suspects


class _Examples:
    """The first few changes in all, passing over those beside which something stands that must not be seen."""

    def __init__(self, hidden: frozenset[Kind], names: NameFinder | None = None) -> None:
        self._hidden, self._names, self._left = hidden, names, EXAMPLES

    def of(self, before: pa.Table, after: pa.Table, places: Positions) -> list[Example]:
        if not self._left:
            return []
        changes = [_change(before, after, place) for place in places[:LOOKED_AT].tolist()]
        sides = [(change.old, change.start, change.start + EXCERPT_BYTES) for change in changes]
        # something that an invisible character had cut in two is found once it is whole
        sides += [(change.new, change.start, change.start + MOST_OF_ONE * EXCERPT_BYTES) for change in changes]
        shown = are_shown(sides, self._hidden, self._names)
        fine = [old and new for old, new in zip(shown[: len(changes)], shown[len(changes) :], strict=True)]
        examples = [change.example() for change in compress(changes, fine)][: self._left]
        self._left -= len(examples)
        return examples


class _Change(NamedTuple):
    line: int
    source: str | None
    old: str
    new: str
    start: int  # shortly before both begin to differ

    def example(self) -> Example:
        old, new = (excerpt(text[self.start :], EXCERPT_BYTES) for text in (self.old, self.new))
        return Example(self.line, self.source, old, new)


def _change(before: pa.Table, after: pa.Table, place: int) -> _Change:
    old, new = (table.slice(place, 1).to_pylist()[0] for table in (before, after))
    name = next(name for name in CONTENT if old[name] != new[name])
    pairs = enumerate(zip(old[name], new[name], strict=False))
    differs = next((at for at, (one, other) in pairs if one != other), min(len(old[name]), len(new[name])))
    return _Change(old["line"], old["source"], old[name], new[name], max(0, differs - EXAMPLE_CONTEXT))
