"""Runs of digits, all of a segment at once: a number is told by the lengths of its runs and by what stands between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.pipeline.pii.segments import Positions, Segment


def byte_set(characters: bytes) -> np.ndarray:
    """A table over all bytes: whether it is one of these."""
    table = np.zeros(256, np.bool_)
    table[list(characters)] = True
    return table


UPPER = byte_set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Runs:
    """Maximal runs of ASCII digits: run n is data[starts[n] : ends[n]]."""

    segment: Segment
    starts: Positions
    ends: Positions

    @classmethod
    def of(cls, segment: Segment) -> Runs:
        is_digit = np.empty(len(segment.codes) + 1, np.bool_)
        is_digit[0] = False
        np.less(segment.codes - np.uint8(48), 10, out=is_digit[1:])
        edges = np.flatnonzero(is_digit[1:] != is_digit[:-1])  # the last byte is a line feed: each run has its end
        return cls(segment, edges[::2], edges[1::2])

    @cached_property
    def lengths(self) -> np.ndarray:
        return np.minimum(self.ends - self.starts, 255).astype(np.uint8)

    @cached_property
    def gaps(self) -> np.ndarray:
        """How many bytes stand between a run and the next one; 255 for many, and after the last one."""
        gaps = np.full(len(self.starts), 255, np.uint8)
        gaps[:-1] = np.minimum(self.starts[1:] - self.ends[:-1], 255)
        return gaps

    @cached_property
    def before(self) -> np.ndarray:
        """The byte before each run."""
        return self.segment.at(self.starts - 1)

    @cached_property
    def after(self) -> np.ndarray:
        """The byte after each run."""
        return self.segment.codes[self.ends]

    def shaped(self, lengths: tuple[int, ...], separators: bytes) -> np.ndarray:
        """The runs with which such a shape begins: runs of these lengths, one of the separators between two of them."""
        count = len(self.starts) - len(lengths) + 1
        if count <= 0:
            return np.empty(0, np.int64)
        candidates = np.flatnonzero(self.lengths[:count] == lengths[0])
        for place in range(1, len(lengths)):
            previous = candidates + (place - 1)
            fits = (self.gaps[previous] == 1) & (self.lengths[previous + 1] == lengths[place])
            candidates = candidates[fits]
            candidates = candidates[byte_set(separators)[self.after[candidates + (place - 1)]]]
        return candidates
