"""Where a condition holds in a run of bytes: a flag for each byte, and how many of them are set, counted 64 at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Positions = np.ndarray[Any, np.dtype[np.int64]]

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)


class Counts:
    """How many flags are set in any part of them, once all have been counted."""

    def __init__(self, flags: Flags) -> None:
        packed = np.packbits(flags, bitorder="little")
        self._words = np.zeros(len(flags) // 64 + 1, np.uint64)
        self._words.view(np.uint8)[: len(packed)] = packed
        self._before = np.zeros(len(self._words), np.int64)
        np.bitwise_count(self._words[:-1]).cumsum(out=self._before[1:])

    def between(self, starts: Positions, ends: Positions) -> Positions:
        """In each flags[starts[n] : ends[n]]."""
        before, after = self.up_to(np.concatenate([starts, ends])).reshape(2, -1)
        return after - before

    def up_to(self, bounds: Positions) -> Positions:
        """In each flags[: bounds[n]]."""
        places = bounds >> 6
        above = _ALL << (bounds & 63).view(np.uint64)
        return self._before[places] + np.bitwise_count(self._words[places] & ~above)
