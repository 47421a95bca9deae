"""Long texts in pieces that a model takes, cut where no name is cut in two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

PIECE_CHARACTERS = 10_000  # a model's memory grows with its longest text: a gigabyte for a hundred thousand
GROUP_CHARACTERS = 50_000  # of all that it is shown at once

_ENDS = ("\n\n", "\n", ". ", " ")  # where to cut, the best one first


class Piece(NamedTuple):
    """Of the text at a place in a list, from `start` on."""

    text: int
    start: int
    said: str


def pieces(texts: Iterable[str], most: int = PIECE_CHARACTERS) -> Iterator[Piece]:
    """All of each text but its blank ends, at most so many characters at a time; what says nothing is left out."""
    for place, text in enumerate(texts):
        done, end = 0, len(text.rstrip())
        while done < end:
            stop = end if end - done <= most else _cut(text, done, done + most)
            said = text[done:stop].lstrip()
            if said:
                yield Piece(place, stop - len(said), said)
            done = stop


def groups(found: Iterable[Piece], most: int = GROUP_CHARACTERS) -> Iterator[list[Piece]]:
    """In their order; one that is longer than `most` is a group of its own."""
    group: list[Piece] = []
    size = 0
    for piece in found:
        if group and size + len(piece.said) > most:
            yield group
            group, size = [], 0
        group.append(piece)
        size += len(piece.said)
    if group:
        yield group


def _cut(text: str, start: int, stop: int) -> int:
    """Behind the last good place in the second half, else in the middle of a word."""
    middle = (start + stop) // 2
    for end in _ENDS:
        at = text.rfind(end, middle, stop)
        if at >= 0:
            return at + len(end)
    return stop
