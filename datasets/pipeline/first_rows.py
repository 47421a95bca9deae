"""Which of all rows was the first with a digest: a hash table of arrays, as a dict's keys and numbers are an object each, and take 150 bytes a row."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

SMALLEST = 1 << 12
NOBODY = 0  # in a slot; whoever has it is its number and one


class FirstRows:
    """Takes the digests of rows in order, which are numbered from 0 on. Each takes 16 bytes, and 8 to 16 more if no other had it before.

    A digest is looked for from a slot on that its bits say, one slot after another; a whole batch takes one step at a time.
    """

    def __init__(self) -> None:
        self._high, self._low = np.empty(SMALLEST, np.uint64), np.empty(SMALLEST, np.uint64)  # of all rows
        self._slots = np.zeros(2 * SMALLEST, np.int32)  # half of them at most are taken
        self._rows = self._taken = 0
        self._factor = np.uint64(secrets.randbits(64) | 1)  # nobody can write rows whose digests all want the same slot

    def of(self, halves: U64) -> Ints:
        """For each of some more rows the number of the first one with its digest, which may be its own: (rows, 2) halves."""
        begin, end = self._rows, self._rows + len(halves)
        self._make_room(len(halves))
        self._high[begin:end], self._low[begin:end] = halves[:, 0], halves[:, 1]
        self._rows = end
        numbers = np.arange(begin, end)
        first = self._placed(numbers, self._high[begin:end], self._low[begin:end])
        self._taken += int(np.count_nonzero(first == numbers))
        return first

    def _placed(self, numbers: Ints, high: U64, low: U64) -> Ints:
        """Give rows their slots, each the first empty one or that of a row with the same digest: the rows that have them."""
        slots = (high * self._factor >> np.uint64(65 - len(self._slots).bit_length())).astype(np.int64)
        first = self._stepped(numbers, slots)
        left = np.flatnonzero((self._high[first] != high) | (self._low[first] != low))
        while len(left):
            slots[left] = (slots[left] + 1) % len(self._slots)
            first[left] = there = self._stepped(numbers[left], slots[left])
            left = left[(self._high[there] != high[left]) | (self._low[there] != low[left])]
        return first

    def _stepped(self, numbers: Ints, slots: Ints) -> Ints:
        """Who has the slots, once these rows have those that are empty: the first of several."""
        there = self._slots[slots]
        empty = np.flatnonzero(there == NOBODY)[::-1]  # the last one that is written stays
        self._slots[slots[empty]] = numbers[empty] + 1
        there[empty] = self._slots[slots[empty]]
        return there.astype(np.int64) - 1

    def _make_room(self, rows: int) -> None:
        if self._rows + rows > len(self._high):
            room = max(2 * len(self._high), self._rows + rows)
            self._high, self._low = (_larger(each[: self._rows], room) for each in (self._high, self._low))
        if 2 * (self._taken + rows) > len(self._slots):
            placed = self._slots[self._slots != NOBODY].astype(np.int64) - 1
            self._slots = np.zeros(1 << (2 * (self._taken + rows)).bit_length(), np.int32)
            self._placed(placed, self._high[placed], self._low[placed])


def _larger(array: U64, room: int) -> U64:
    larger = np.empty(room, np.uint64)
    larger[: len(array)] = array
    return larger
