"""The loop over JSON records that are written alike: one look at each byte, and the texts that are wanted straight into buffers.

Statuses: TAKEN, and then the record is strict JSON with exactly the given keys, each once, and what is wanted of it has been written.
BROKEN: no decoder makes a row of it. OTHER: it has other keys. ODD: a decoder has to say.

Indices. A record is data[start:end], and data[end] is a line feed, which stands in no string, name, number, and key: so whoever
compares bytes one after the other stops there at the latest, and what has been found to be another byte stands before it. WIDTH
bytes are there from each end on, because so many are looked at and copied at once. What a string says takes at most as many bytes
as the string, so that all texts of a column fit into as many bytes as all records have, and WIDTH more.
"""

from __future__ import annotations

from typing import Any

from datasets.pipeline.compiled import compiled, part
from datasets.pipeline.reading.scan.json_values import (
    BACKSLASH,
    BEGIN,
    BROKEN,
    COLON,
    COMMA,
    END,
    FIRST,
    MINUS,
    ODD,
    POINT,
    QUOTE,
    ZERO,
    behind_integer,
    behind_name,
    behind_space,
    behind_value,
    write_text,
)

TAKEN, OTHER = 1, -2
NEEDED, OPTIONAL, GROUP = 0, 1, 2  # text; text or null; text, null, or an integer


@part
def _behind_key(data: Any, place: int, keys: Any, begin: int, end: int) -> int:
    """Behind the quote of this key, if it stands at `place`; otherwise -1."""
    size = end - begin
    for ahead in range(size):
        if data[place + ahead] != keys[begin + ahead]:
            return -1
    return place + size + 1 if data[place + size] == QUOTE else -1


@part
def _unknown_key(data: Any, place: int) -> int:
    """Written with an escape it may be a known one; whether its bytes are UTF-8 is for those to say who know it."""
    while data[place] >= FIRST and data[place] != QUOTE and data[place] != BACKSLASH:
        place += 1
    if data[place] == QUOTE:
        return OTHER
    return ODD if data[place] == BACKSLASH else BROKEN


@part
def _record(
    data: Any, place: int, end: int, keys: Any, bounds: Any, columns: Any, kinds: Any, order: Any,
    nest: Any, names: Any, room: int, into: Any, ends: Any, filled: Any, row: int,
) -> int:  # fmt: skip
    """Its status. order[:n] are the n keys that were seen last in it."""
    place = behind_space(data, place, end)
    if data[place] != BEGIN:
        return BROKEN
    place = behind_space(data, place + 1, end)
    if data[place] == END:
        return OTHER
    seen = 0
    while True:
        if data[place] != QUOTE:
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
        place = behind_space(data, behind, end)
        if data[place] != COLON:
            return BROKEN
        place = behind_space(data, place + 1, end)
        column = columns[key]
        if column < 0:
            place = behind_value(data, place, end, nest, names)
        else:
            first = ends[column, row]
            ends[column, row + 1] = first
            filled[column, row] = False
            if data[place] == QUOTE:
                place, last = write_text(data, place + 1, into, column * room + first)
                ends[column, row + 1] = last - column * room
                filled[column, row] = True
            elif kinds[key] == NEEDED:
                return BROKEN
            elif data[place] == ord("n"):
                place = behind_name(data, place)
            elif kinds[key] == GROUP:
                number = place
                place = behind_integer(data, number)
                # -0 is written as 0, and one that fits no 64 bits has to be looked at; what is no integer, too
                if place - number > 18 or (place - number == 2 and data[number] == MINUS and data[number + 1] == ZERO):
                    return ODD
                if place < 0 or data[place] == POINT or data[place] == ord("e") or data[place] == ord("E"):
                    return ODD
                for ahead in range(place - number):
                    into[column * room + first + ahead] = data[number + ahead]
                ends[column, row + 1] = first + place - number
                filled[column, row] = True
            else:
                return ODD
        if place < 0:
            return place
        place = behind_space(data, place, end)
        if data[place] == COMMA:
            place = behind_space(data, place + 1, end)
        elif data[place] == END:
            break
        else:
            return BROKEN
    if behind_space(data, place + 1, end) != end:
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
