"""Runs of digits, all of a segment at once: a number is told by the lengths of its runs and by what stands between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datasets.pipeline.pii.segments import Positions, Segment, byte_set
from datasets.pipeline.pii.surroundings import WORDS, may_begin

UPPER = byte_set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
SEPARATES = byte_set(b" -./")


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

    def may_stand_alone(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """False where between these runs, themselves included, nothing begins and ends."""
        return ~WORDS[self.after[last]] & may_begin(self.segment, self.starts[first])

    @cached_property
    def _separated(self) -> tuple[np.ndarray, np.ndarray]:
        """The runs that a single byte separates from the next one, and the lengths of both in one number."""
        runs = np.flatnonzero(self.gaps == 1)
        runs = runs[SEPARATES[self.after[runs]]]
        return runs, self.lengths[runs].astype(np.uint16) << 8 | self.lengths[runs + 1]

    def shaped(self, lengths: tuple[int, ...], separators: np.ndarray) -> np.ndarray:
        """The runs with which such a shape begins: runs of these lengths, one of the separators between two of them.

        A shape has two runs or more; separators are a byte_set of bytes in SEPARATES.
        """
        some, pairs = self._separated
        candidates = some[pairs == (lengths[0] << 8 | lengths[1])]
        for place in range(1, len(lengths)):
            if not len(candidates):
                break
            previous = candidates + (place - 1)
            fits = (self.gaps[previous] == 1) & separators[self.after[previous]]
            candidates = candidates[fits]
            candidates = candidates[self.lengths[candidates + place] == lengths[place]]
        return candidates
