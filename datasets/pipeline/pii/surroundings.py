r"""What stands before and after a place: whether something begins or ends there, and which words are near.

Texts are source code, JSON, and prose alike. A letter after a backslash (\n, \t, and \u0041 as a whole) belongs to an escape, and
is neither part of what follows nor its neighbour: what is replaced must leave the escape as it was.
"""

from __future__ import annotations

import re

WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
DIGITS = frozenset(b"0123456789")
BACKSLASH = 92
_ESCAPE = re.compile(rb"\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|[abfnrtv])")
_LONGEST_ESCAPE = 6
_WORDS = re.compile(rb"[A-Z]?[a-z\x80-\xff]+|[A-Z]+(?![a-z])")
_OUR_WORDS = re.compile(rb"[A-Z_]{1,20}_[a-p]{12}(?![a-z])")  # a placeholder, or its end, says nothing of what follows
CONTEXT_BYTES = 40


def begins(data: bytes, position: int) -> bool:
    """Whether a word or a number may begin here: not within another one, and not within an escape."""
    if position == 0:
        return True
    before = data[position - 1]
    if before == BACKSLASH:
        return False
    return before not in WORD or _ends_escape(data, position)


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


def _ends_escape(data: bytes, position: int) -> bool:
    backslash = data.rfind(b"\\", max(0, position - _LONGEST_ESCAPE), position)
    if backslash < 0:
        return False
    escape = _ESCAPE.match(data, backslash)
    return escape is not None and escape.end() == position
