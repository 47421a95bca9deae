"""The loop over JSON records that are written alike: one look at each byte, and the texts that are wanted straight into buffers.

Statuses: TAKEN, and then the record is strict JSON with exactly the given keys, each once, and what is wanted of it has been written.
BROKEN: no decoder makes a row of it. OTHER: it has other keys. ODD: a decoder has to say.

Indices. A record is data[start:end], and data[end] is a line feed, which stands in no string, name, number, and key: so whoever
compares bytes one after the other stops there at the latest, and what has been found to be another byte stands before it. WIDTH
bytes are there from each end on, because so many are looked at and copied at once. What a string says takes at most as many bytes
as the string, so that all texts of a column fit into as many bytes as all records have, and WIDTH more.

All loops are in this one file: what is kept of compiled code is dropped where its file changes, whatever it calls.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from datasets.pipeline.compiled import compiled
from datasets.pipeline.scan.vectors import WIDTH, copy, leading

TAKEN, BROKEN, OTHER, ODD = 1, -1, -2, -3
NEEDED, OPTIONAL, GROUP = 0, 1, 2  # text; text or null; text, null, or an integer

MOST_DIGITS = 60  # of a number: with an exponent of two digits it is finite, and Python takes as many
MOST_DEPTH = 32  # of a value without interest
MOST_INNER_KEYS = 100  # of all objects around a place
MOST_INNER_KEY_BYTES = 1_000  # each is compared with those before it
_QUOTE, _BACKSLASH, _COLON, _COMMA, _BEGIN, _END, _FIRST_ITEM, _LAST_ITEM = b'"\\:,{}[]'
_MINUS, _POINT, _ZERO, _NINE = b"-.09"
_SPACE, _TAB, _NEWLINE, _RETURN = b" \t\n\r"
_U = ord("u")
_FIRST = 0x20  # of the bytes that a string may hold
_ESCAPED = np.zeros(256, np.uint8)  # what a byte says behind a backslash
for _one, _said in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPED[_one] = _said
_DIGITS = np.full(256, -1, np.int64)
for _value, _one in enumerate(b"0123456789abcdef"):
    _DIGITS[_one] = _DIGITS[ord(chr(_one).upper())] = _value

_part = numba.njit(nogil=True, boundscheck=False, error_model="numpy")  # of a loop below, and kept with it


@_part
def _behind_space(data: Any, place: int, end: int) -> int:
    while place < end:
        byte = data[place]
        if byte != _SPACE and byte != _TAB and byte != _RETURN and byte != _NEWLINE:
            break
        place += 1
    return place


@_part
def _is_continuation(byte: int) -> bool:
    return 0x80 <= byte <= 0xBF


@_part
def _wide(data: Any, place: int) -> int:
    """How many bytes the character beyond ASCII at `place` has; 0 where it is no UTF-8 (RFC 3629, section 4)."""
    first = data[place]
    if first < 0xC2 or first > 0xF4:
        return 0
    second = data[place + 1]
    if not _is_continuation(second):
        return 0
    if first < 0xE0:
        return 2
    if (first == 0xE0 and second < 0xA0) or (first == 0xED and second > 0x9F):
        return 0
    if not _is_continuation(data[place + 2]):
        return 0
    if first < 0xF0:
        return 3
    if (first == 0xF0 and second < 0x90) or (first == 0xF4 and second > 0x8F):
        return 0
    return 4 if _is_continuation(data[place + 3]) else 0


@_part
def _unit(data: Any, place: int) -> int:
    """The four hexadecimal digits at `place`, or -1."""
    unit = 0
    for ahead in range(4):
        digit = _DIGITS[data[place + ahead]]
        if digit < 0:
            return -1
        unit = unit * 16 + digit
    return unit


@_part
def _code(data: Any, place: int) -> int:
    r"""The character whose \uXXXX, or pair of them, begins with the digits at `place`; -1 for none, NUL, and half a pair."""
    unit = _unit(data, place)
    if unit <= 0 or 0xDC00 <= unit <= 0xDFFF:
        return -1
    if unit < 0xD800 or unit > 0xDFFF:
        return unit
    if data[place + 4] != _BACKSLASH or data[place + 5] != _U:
        return -1
    low = _unit(data, place + 6)
    if low < 0xDC00 or low > 0xDFFF:
        return -1
    return 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)


@_part
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


@_part
def _text(data: Any, place: int, into: Any, at: int) -> tuple[int, int]:
    """Write what the string says whose first byte stands at `place`: (behind its quote or BROKEN, behind what was written)."""
    while True:
        copy(data, place, into, at)
        plain = leading(data, place, _QUOTE, _BACKSLASH, _FIRST)
        if (
            plain == WIDTH
        ):  # not added as it was found: the processor would wait for it before it looks at the next ones
            place += WIDTH
            at += WIDTH
            continue
        place += plain
        at += plain
        byte = data[place]
        if byte == _BACKSLASH:
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
        elif byte == _QUOTE:
            return place + 1, at
        else:
            size = _wide(data, place)
            if size == 0:
                return BROKEN, at
            for ahead in range(size):
                into[at + ahead] = data[place + ahead]
            place += size
            at += size


@_part
def _behind_text(data: Any, place: int) -> int:
    """The same, without a word of what it says."""
    while True:
        plain = leading(data, place, _QUOTE, _BACKSLASH, _FIRST)
        if plain == WIDTH:
            place += WIDTH
            continue
        place += plain
        byte = data[place]
        if byte == _BACKSLASH:
            if _ESCAPED[data[place + 1]] != 0:
                place += 2
                continue
            if data[place + 1] != _U:
                return BROKEN
            code = _code(data, place + 2)
            if code < 0:
                return BROKEN
            place += 6 if code < 0x10000 else 12
        elif byte == _QUOTE:
            return place + 1
        else:
            size = _wide(data, place)
            if size == 0:
                return BROKEN
            place += size


@_part
def _is_digit(byte: int) -> bool:
    return _ZERO <= byte <= _NINE


@_part
def _behind_integer(data: Any, place: int) -> int:
    """Behind the whole part of the number that may begin at `place`; BROKEN where none does."""
    if data[place] == _MINUS:
        place += 1
    if data[place] == _ZERO:
        return place + 1
    if not _is_digit(data[place]):
        return BROKEN
    while _is_digit(data[place]):
        place += 1
    return place


@_part
def _behind_number(data: Any, begin: int) -> int:
    """ODD where it may be longer than Python's numbers or infinite."""
    place = _behind_integer(data, begin)
    if place < 0:
        return BROKEN
    if data[place] == _POINT:
        place += 1
        if not _is_digit(data[place]):
            return BROKEN
        while _is_digit(data[place]):
            place += 1
    if place - begin > MOST_DIGITS:
        return ODD
    if data[place] == ord("e") or data[place] == ord("E"):
        place += 1
        if data[place] == _MINUS or data[place] == ord("+"):
            place += 1
        first = place
        while _is_digit(data[place]):
            place += 1
        if place == first:
            return BROKEN
        if place - first > 2:
            return ODD
    return place


@_part
def _behind_name(data: Any, place: int) -> int:
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


@_part
def _behind_plain(data: Any, place: int) -> int:
    """Behind a text, a number, or a name."""
    byte = data[place]
    if byte == _QUOTE:
        return _behind_text(data, place + 1)
    if byte == _MINUS or _is_digit(byte):
        return _behind_number(data, place)
    return _behind_name(data, place)


@_part
def _is_open(byte: int) -> bool:
    return byte in (_BEGIN, _FIRST_ITEM)


@_part
def _behind_inner_key(data: Any, place: int, end: int, names: Any, first: int, held: int) -> int:
    """Behind the colon of a key, which becomes names[held]; names[first:held] are those that it must not be."""
    if data[place] != _QUOTE:
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
        if data[at] == _BACKSLASH:
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
    place = _behind_space(data, place, end)
    return _behind_space(data, place + 1, end) if data[place] == _COLON else BROKEN


@_part
def _behind_value(data: Any, place: int, end: int, nest: Any, names: Any) -> int:
    """Behind a value of no interest: nest[d] is whether the d-th of what is open around a place is an object, and the number of
    its first key in `names`."""
    depth, held = 0, 0
    while True:
        if _is_open(data[place]):
            is_object = data[place] == _BEGIN
            place = _behind_space(data, place + 1, end)
            if data[place] == (_END if is_object else _LAST_ITEM):
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
            place = _behind_space(data, place, end)
            is_object = nest[depth - 1, 0] == 1
            if data[place] == _COMMA:
                place = _behind_space(data, place + 1, end)
                if is_object:
                    place = _behind_inner_key(data, place, end, names, nest[depth - 1, 1], held)
                    if place < 0:
                        return place
                    held += 1
                break
            if data[place] != (_END if is_object else _LAST_ITEM):
                return BROKEN
            place += 1
            depth -= 1
            held = nest[depth, 1]
        if depth == 0:
            return place


@_part
def _behind_key(data: Any, place: int, keys: Any, begin: int, end: int) -> int:
    """Behind the quote of this key, if it stands at `place`; otherwise -1."""
    size = end - begin
    for ahead in range(size):
        if data[place + ahead] != keys[begin + ahead]:
            return -1
    return place + size + 1 if data[place + size] == _QUOTE else -1


@_part
def _unknown_key(data: Any, place: int) -> int:
    """Written with an escape it may be a known one; whether its bytes are UTF-8 is for those to say who know it."""
    while data[place] >= _FIRST and data[place] != _QUOTE and data[place] != _BACKSLASH:
        place += 1
    if data[place] == _QUOTE:
        return OTHER
    return ODD if data[place] == _BACKSLASH else BROKEN


@_part
def _record(
    data: Any, place: int, end: int, keys: Any, bounds: Any, columns: Any, kinds: Any, order: Any,
    nest: Any, names: Any, room: int, into: Any, ends: Any, filled: Any, row: int,
) -> int:  # fmt: skip
    """Its status. order[:n] are the n keys that were seen last in it."""
    place = _behind_space(data, place, end)
    if data[place] != _BEGIN:
        return BROKEN
    place = _behind_space(data, place + 1, end)
    if data[place] == _END:
        return OTHER
    seen = 0
    while True:
        if data[place] != _QUOTE:
            return BROKEN
        place += 1
        behind = -1
        for at in range(seen, len(order)):
            key = order[at]
            behind = _behind_key(data, place, keys, bounds[key], bounds[key + 1])
            if behind >= 0:
                order[at] = order[seen]
                order[seen] = key
                break
        if behind < 0:
            for at in range(seen):
                if _behind_key(data, place, keys, bounds[order[at]], bounds[order[at] + 1]) >= 0:
                    return BROKEN  # twice
            return _unknown_key(data, place)
        key = order[seen]
        seen += 1
        place = _behind_space(data, behind, end)
        if data[place] != _COLON:
            return BROKEN
        place = _behind_space(data, place + 1, end)
        column = columns[key]
        if column < 0:
            place = _behind_value(data, place, end, nest, names)
        else:
            first = ends[column, row]
            ends[column, row + 1] = first
            filled[column, row] = False
            if data[place] == _QUOTE:
                place, last = _text(data, place + 1, into, column * room + first)
                ends[column, row + 1] = last - column * room
                filled[column, row] = True
            elif kinds[key] == NEEDED:
                return BROKEN
            elif data[place] == ord("n"):
                place = _behind_name(data, place)
            elif kinds[key] == GROUP:
                number = place
                place = _behind_integer(data, number)
                # -0 is written as 0, and one that fits no 64 bits has to be looked at; what is no integer, too
                if place - number > 18 or (
                    place - number == 2 and data[number] == _MINUS and data[number + 1] == _ZERO
                ):
                    return ODD
                if place < 0 or data[place] == _POINT or data[place] == ord("e") or data[place] == ord("E"):
                    return ODD
                for ahead in range(place - number):
                    into[column * room + first + ahead] = data[number + ahead]
                ends[column, row + 1] = first + place - number
                filled[column, row] = True
            else:
                return ODD
        if place < 0:
            return place
        place = _behind_space(data, place, end)
        if data[place] == _COMMA:
            place = _behind_space(data, place + 1, end)
        elif data[place] == _END:
            break
        else:
            return BROKEN
    if _behind_space(data, place + 1, end) != end:
        return BROKEN
    return TAKEN if seen == len(order) else OTHER


@compiled(
    "int64(Array(uint8, 1, 'C', True), int64[::1], int64[::1], int64, uint8[::1], int64[::1], int64[::1], int64[::1], int64[::1], "
    "int64[:, ::1], int64[:, ::1], int64, uint8[::1], int32[:, ::1], boolean[:, ::1], int8[::1])"
)
def scan(
    data: Any, starts: Any, stops: Any, most: int, keys: Any, bounds: Any, columns: Any, kinds: Any, order: Any,
    nest: Any, names: Any, room: int, into: Any, ends: Any, filled: Any, statuses: Any,
) -> int:  # fmt: skip
    """How many of the records data[starts[n]:stops[n]] were taken; statuses[n] says what became of each. None has more than `most`
    bytes.

    Key k is keys[bounds[k]:bounds[k + 1]]; what it holds goes to column columns[k], if that is not negative, and may be what kinds[k]
    says. `order` is any order of the keys, and becomes that of the last record. `nest` and `names` are notes of MOST_DEPTH and
    MOST_INNER_KEYS pairs.
    Column c begins at into[c * room]; of row r it has what stands from ends[c, r] to ends[c, r + 1] from there, if filled[c, r].
    """
    rows = 0
    for number in range(len(starts)):
        start, stop = starts[number], stops[number]
        if stop - start > most:
            statuses[number] = BROKEN
            continue
        status = _record(
            data, start, stop, keys, bounds, columns, kinds, order, nest, names, room, into, ends, filled,
            rows,
        )  # fmt: skip
        statuses[number] = status
        if status == TAKEN:
            rows += 1
    return rows
