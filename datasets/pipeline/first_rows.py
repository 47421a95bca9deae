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
        self._halves = np.empty((SMALLEST, 2), np.uint64)  # of all rows
        self._slots = np.zeros(2 * SMALLEST, np.int32)  # half of them at most are taken
        self._rows = self._taken = 0
        self._factor = np.uint64(secrets.randbits(64) | 1)  # nobody can write rows whose digests all want the same slot

    def of(self, halves: U64) -> Ints:
        """For each of some more rows the number of the first one with its digest, which may be its own: (rows, 2) halves."""
        numbers = np.arange(self._rows, self._rows + len(halves))
        self._make_room(len(halves))
        self._halves[numbers] = halves
        self._rows += len(halves)
        first = self._placed(numbers)
        self._taken += int(np.count_nonzero(first == numbers))
        return first

    def _placed(self, numbers: Ints) -> Ints:
        """Give rows their slots, each the first empty one or that of a row with the same digest: the rows that have them."""
        first = np.empty(len(numbers), np.int64)
        left = np.arange(len(numbers))
        slots = self._home(numbers)
        while len(left):
            empty = np.flatnonzero(self._slots[slots] == NOBODY)[::-1]
            self._slots[slots[empty]] = (
                numbers[left[empty]] + 1
            )  # of several rows the last one in this order has it: the first
            there = self._slots[slots].astype(np.int64) - 1
            same = (self._halves[there] == self._halves[numbers[left]]).all(axis=1)
            first[left[same]] = there[same]
            left, slots = left[~same], (slots[~same] + 1) % len(self._slots)
        return first

    def _home(self, numbers: Ints) -> Ints:
        bits = len(self._slots).bit_length() - 1
        return (self._halves[numbers, 0] * self._factor >> np.uint64(64 - bits)).astype(np.int64)

    def _make_room(self, rows: int) -> None:
        if self._rows + rows > len(self._halves):
            larger = np.empty((max(2 * len(self._halves), self._rows + rows), 2), np.uint64)
            larger[: self._rows] = self._halves[: self._rows]
            self._halves = larger
        if 2 * (self._taken + rows) > len(self._slots):
            placed = self._slots[self._slots != NOBODY].astype(np.int64) - 1
            self._slots = np.zeros(1 << (2 * (self._taken + rows)).bit_length(), np.int32)
            self._placed(placed)
