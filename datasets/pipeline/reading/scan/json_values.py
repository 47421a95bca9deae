"""The parts of the loop over JSON records that know what may stand in one: texts, numbers, names, and values of no interest.

Each is given the place where something may begin, and says where it is over; BROKEN where JSON has no such thing, and ODD where a decoder
has to look at it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from datasets.pipeline.compiled import part
from datasets.pipeline.reading.scan.utf8 import wide
from datasets.pipeline.reading.scan.vectors import WIDTH, copy, leading, seek

BROKEN, ODD = -1, -3

MOST_DIGITS = 60  # of a number: with an exponent of two digits it is finite, and Python takes as many
MOST_DEPTH = 32  # of a value without interest
MOST_INNER_KEYS = 100  # of all objects around a place
MOST_INNER_KEY_BYTES = 1_000  # each is compared with those before it
QUOTE, BACKSLASH, COLON, COMMA, BEGIN, END, _FIRST_ITEM, _LAST_ITEM = b'"\\:,{}[]'
MINUS, POINT, ZERO, _NINE = b"-.09"
_SPACE, _TAB, _NEWLINE, _RETURN = b" \t\n\r"
_U = ord("u")
FIRST = 0x20  # of the bytes that a string may hold
_ESCAPED = np.zeros(256, np.uint8)  # what a byte says behind a backslash
for _one, _said in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_one] = _said
_DIGITS = np.full(256, -1, np.int64)
for _value, _one in enumerate(b"0123456789abcdef"):
    _DIGITS[_one] = _DIGITS[ord(chr(_one).upper())] = _value


@part
def behind_space(data: Any, place: int, end: int) -> int:
    while place < end:
        byte = data[place]
        if byte != _SPACE and byte != _TAB and byte != _RETURN and byte != _NEWLINE:
            break
        place += 1
    return place


@part
def _unit(data: Any, place: int) -> int:
    """The four hexadecimal digits at `place`, or -1."""
    unit = 0
    for ahead in range(4):
        digit = _DIGITS[data[place + ahead]]
        if digit < 0:
            return -1
        unit = unit * 16 + digit
    return unit


@part
def _code(data: Any, place: int) -> int:
    r"""The character whose \uXXXX, or pair of them, begins with the digits at `place`; -1 for none, NUL, and half a pair."""
    unit = _unit(data, place)
    if unit <= 0 or 0xDC00 <= unit <= 0xDFFF:
        return -1
    if unit < 0xD800 or unit > 0xDFFF:
        return unit
    if data[place + 4] != BACKSLASH or data[place + 5] != _U:
        return -1
    low = _unit(data, place + 6)
    if low < 0xDC00 or low > 0xDFFF:
        return -1
    return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)


@part
def _write(into: Any, at: int, code: int) -> int:
    """A character as UTF-8; behind it."""
    if code < 0x80:
        into[at] = code
        return at + 1
    if code < 0x800:
        into[at] = 0xC0 | (code >> 6)
        into[at + 1] = 0x80 | (code & 0x3F)
        return at + 2
    if code < 0x10000:
        into[at] = 0xE0 | (code >> 12)
        into[at + 1] = 0x80 | ((code >> 6) & 0x3F)
        into[at + 2] = 0x80 | (code & 0x3F)
        return at + 3
    into[at] = 0xF0 | (code >> 18)
    into[at + 1] = 0x80 | ((code >> 12) & 0x3F)
    into[at + 2] = 0x80 | ((code >> 6) & 0x3F)
    into[at + 3] = 0x80 | (code & 0x3F)
    return at + 4


@part
def write_text(data: Any, place: int, into: Any, at: int) -> tuple[int, int]:
    """Write what the string says whose first byte stands at `place`: (behind its quote or BROKEN, behind what was written)."""
    while True:
        copy(data, place, into, at)
        plain = leading(data, place, QUOTE, BACKSLASH, FIRST)
        if plain == WIDTH:
            place += WIDTH
            at += WIDTH
            continue
        place += plain
        at += plain
        byte = data[place]
        if byte == BACKSLASH:
            said = _ESCAPED[data[place + 1]]
            if said != 0:
                into[at] = said
                place += 2
                at += 1
                continue
            if data[place + 1] != _U:
                return BROKEN, at
            code = _code(data, place + 2)
            if code < 0:
                return BROKEN, at
            at = _write(into, at, code)
            place += 6 if code < 0x10000 else 12
        elif byte == QUOTE:
            return place + 1, at
        else:
            size = wide(data, place)
            if size == 0:
                return BROKEN, at
            for ahead in range(size):
                into[at + ahead] = data[place + ahead]
            place += size
            at += size


@part
def _behind_text(data: Any, place: int) -> int:
    """The same, without a word of what it says."""
    while True:
        place = seek(data, place, len(data), QUOTE, BACKSLASH, FIRST)
        byte = data[place]
        if byte == BACKSLASH:
            if _ESCAPED[data[place + 1]] != 0:
                place += 2
                continue
            if data[place + 1] != _U:
                return BROKEN
            code = _code(data, place + 2)
            if code < 0:
                return BROKEN
            place += 6 if code < 0x10000 else 12
        elif byte == QUOTE:
            return place + 1
        else:
            size = wide(data, place)
            if size == 0:
                return BROKEN
            place += size


@part
def _is_digit(byte: int) -> bool:
    return ZERO <= byte <= _NINE


@part
def behind_integer(data: Any, place: int) -> int:
    """Behind the whole part of the number that may begin at `place`; BROKEN where none does."""
    if data[place] == MINUS:
        place += 1
    if data[place] == ZERO:
        return place + 1
    if not _is_digit(data[place]):
        return BROKEN
    while _is_digit(data[place]):
        place += 1
    return place


@part
def _behind_number(data: Any, begin: int) -> int:
    """ODD where it may be longer than Python's numbers or infinite."""
    place = behind_integer(data, begin)
    if place < 0:
        return BROKEN
    if data[place] == POINT:
        place += 1
        if not _is_digit(data[place]):
            return BROKEN
        while _is_digit(data[place]):
            place += 1
    if place - begin > MOST_DIGITS:
        return ODD
    if data[place] == ord("e") or data[place] == ord("E"):
        place += 1
        if data[place] == MINUS or data[place] == ord("+"):
            place += 1
        first = place
        while _is_digit(data[place]):
            place += 1
        if place == first:
            return BROKEN
        if place - first > 2:
            return ODD
    return place


@part
def behind_name(data: Any, place: int) -> int:
    """Behind true, false, or null; BROKEN for all else, which is not what JSON has."""
    first, second, third, fourth = ord("t"), ord("r"), ord("u"), ord("e")
    if data[place] == ord("n"):
        first, second, third, fourth = ord("n"), ord("u"), ord("l"), ord("l")
    elif data[place] == ord("f"):
        first, second, third, fourth = ord("a"), ord("l"), ord("s"), ord("e")
        place += 1
    if data[place] != first or data[place + 1] != second or data[place + 2] != third or data[place + 3] != fourth:
        return BROKEN
    return place + 4


@part
def _behind_plain(data: Any, place: int) -> int:
    """Behind a text, a number, or a name."""
    byte = data[place]
    if byte == QUOTE:
        return _behind_text(data, place + 1)
    if byte == MINUS or _is_digit(byte):
        return _behind_number(data, place)
    return behind_name(data, place)


@part
def _is_open(byte: int) -> bool:
    return byte in (BEGIN, _FIRST_ITEM)


@part
def _behind_inner_key(data: Any, place: int, end: int, names: Any, first: int, held: int) -> int:
    """Behind the colon of a key, which becomes names[held]; names[first:held] are those that it must not be."""
    if data[place] != QUOTE:
        return BROKEN
    if held == MOST_INNER_KEYS:
        return ODD
    begin = place + 1
    place = _behind_text(data, begin)
    if place < 0:
        return BROKEN
    size = place - 1 - begin
    if size > MOST_INNER_KEY_BYTES:
        return ODD
    for at in range(begin, begin + size):
        if data[at] == BACKSLASH:
            return ODD
    for other in range(first, held):
        if names[other, 1] == size:
            ahead = 0
            while ahead < size and data[names[other, 0] + ahead] == data[begin + ahead]:
                ahead += 1
            if ahead == size:
                return BROKEN
    names[held, 0] = begin
    names[held, 1] = size
    place = behind_space(data, place, end)
    return behind_space(data, place + 1, end) if data[place] == COLON else BROKEN


@part
def behind_value(data: Any, place: int, end: int, nest: Any, names: Any) -> int:
    """Behind a value of no interest: nest[d] is whether the d-th of what is open around a place is an object, and the number of
    its first key in `names`."""
    depth, held = 0, 0
    while True:
        if _is_open(data[place]):
            is_object = data[place] == BEGIN
            place = behind_space(data, place + 1, end)
            if data[place] == (END if is_object else _LAST_ITEM):
                place += 1
            else:
                if depth == MOST_DEPTH:
                    return ODD
                nest[depth, 0] = is_object
                nest[depth, 1] = held
                depth += 1
                if is_object:
                    place = _behind_inner_key(data, place, end, names, held, held)
                    if place < 0:
                        return place
                    held += 1
                continue
        else:
            place = _behind_plain(data, place)
            if place < 0:
                return place
        while depth > 0:
            place = behind_space(data, place, end)
            is_object = nest[depth - 1, 0] == 1
            if data[place] == COMMA:
                place = behind_space(data, place + 1, end)
                if is_object:
                    place = _behind_inner_key(data, place, end, names, nest[depth - 1, 1], held)
                    if place < 0:
                        return place
                    held += 1
                break
            if data[place] != (END if is_object else _LAST_ITEM):
                return BROKEN
            place += 1
            depth -= 1
            held = nest[depth, 1]
        if depth == 0:
            return place
