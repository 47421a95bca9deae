r"""What stands before and after a place: whether something begins or ends there, and which words are near.

Texts are source code, JSON, and prose alike. A letter after a backslash (\n, \t, and \u0041 as a whole) belongs to an escape, and
is neither part of what follows nor its neighbour: what is replaced must leave the escape as it was.
"""

from __future__ import annotations

import re
from itertools import product

import numpy as np

from datasets.pipeline.pii.segments import Positions, Segment, byte_set

WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
DIGITS = frozenset(b"0123456789")
WORDS = byte_set(bytes(WORD))
BACKSLASH = 92
_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[abfnrtv])")
LONGEST_ESCAPE = 6
_WORDS = re.compile(rb"[A-Z]?[a-z\x80-\xff]+|[A-Z]+(?![a-z])")
_OUR_WORDS = re.compile(rb"[A-Z_]{1,20}_[a-p]{12}(?![a-z])")  # a placeholder, or its end, says nothing of what follows
CONTEXT_BYTES = 40

_HEAD_BYTES = 4
_FOLDED_BITS = 5  # in which ASCII has a letter, whatever its case
_FOLD = (1 << _FOLDED_BITS) - 1
_AT_A_TIME = 4096


def begins(data: bytes, position: int) -> bool:
    """Whether a word or a number may begin here: not within another one, and not within an escape."""
    if position == 0:
        return True
    before = data[position - 1]
    if before == BACKSLASH:
        return False
    return before not in WORD or _ends_escape(data, position)


def may_begin(segment: Segment, positions: Positions) -> np.ndarray:
    """False where nothing begins; true where something does, or where an escape may end that has a letter or a digit."""
    before = segment.at(positions - 1)
    may = ~WORDS[before]
    for distance in range(2, LONGEST_ESCAPE + 1):
        may |= segment.at(positions - distance) == BACKSLASH
    return may & (before != BACKSLASH)


def ends(data: bytes, position: int) -> bool:
    return data[position] not in WORD


def after_escape(data: bytes, position: int) -> int:
    """Where the text begins: here, or behind the rest of an escape whose backslash stands before."""
    if position and data[position - 1] == BACKSLASH and (escape := _ESCAPE.match(data, position - 1)):
        return escape.end()
    return position


def before(data: bytes, position: int, length: int) -> bytes:
    """At most so many bytes of the same line, up to here."""
    start = max(0, position - length)
    return data[data.rfind(b"\n", start, position) + 1 or start : position]


def mentions(data: bytes, position: int, words: frozenset[bytes], length: int = CONTEXT_BYTES) -> bool:
    """Whether one of the words stands before, whatever its case, by itself or within a name in camel or snake case."""
    text = _OUR_WORDS.sub(b"", before(data, position, length))
    return any(word.lower() in words for word in _WORDS.findall(text))


def heads(words: frozenset[bytes]) -> np.ndarray:
    """For `may_mention`: a table over folded bytes, true for those with which one of the words begins.

    And for those with which the end of our own words does: what is left around one that is taken out can be a word.
    """
    ours = (bytes((ord("_"), *letters)) for letters in product(b"abcdefghijklmnop", repeat=_HEAD_BYTES - 1))
    table = np.zeros((1 << _FOLDED_BITS,) * _HEAD_BYTES, np.bool_)
    for word in (*words, *ours):
        table[tuple(code & _FOLD for code in word[:_HEAD_BYTES])] = True  # a shorter word, whatever follows
    return table.reshape(-1)


def may_mention(segment: Segment, positions: Positions, table: np.ndarray) -> np.ndarray:
    """False only where `mentions` is, too: where no word of the table can stand before a position."""
    width = CONTEXT_BYTES + _HEAD_BYTES - 1  # a word may end there that is shorter than a head
    windows = np.lib.stride_tricks.sliding_window_view(segment.codes, width)
    may = np.empty(len(positions), np.bool_)
    for first in range(0, len(positions), _AT_A_TIME):
        some = slice(first, first + _AT_A_TIME)
        folded = (windows[np.maximum(positions[some] - CONTEXT_BYTES, 0)] & _FOLD).astype(np.uint32)
        numbers = folded[:, :CONTEXT_BYTES]
        for place in range(1, _HEAD_BYTES):
            numbers = numbers << _FOLDED_BITS | folded[:, place : place + CONTEXT_BYTES]
        may[some] = table[numbers].any(axis=1)
    return may


def _ends_escape(data: bytes, position: int) -> bool:
    backslash = data.rfind(b"\\", max(0, position - LONGEST_ESCAPE), position)
    if backslash < 0:
        return False
    escape = _ESCAPE.match(data, backslash)
    return escape is not None and escape.end() == position
