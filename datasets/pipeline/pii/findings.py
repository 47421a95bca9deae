"""What was found: rows, spans, and kinds as arrays."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from datasets.pipeline.pii.kinds import CODES, KINDS, SECRETS, Kind
from datasets.pipeline.pii.segments import Segment


class Hit(NamedTuple):
    """A span in the bytes of a segment."""

    start: int
    end: int
    kind: Kind


class Finding(NamedTuple):
    """A span in characters of one row: texts[row][start:end]."""

    row: int
    start: int
    end: int
    kind: Kind


@dataclass(frozen=True)
class Findings:
    """Arrays of equal length, ordered by row and start; no two spans overlap. `kind` holds places in KINDS."""

    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    kind: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __iter__(self) -> Iterator[Finding]:
        columns = (self.row.tolist(), self.start.tolist(), self.end.tolist(), self.kind.tolist())
        return (Finding(row, start, end, KINDS[code]) for row, start, end, code in zip(*columns, strict=True))

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Findings:
        flat = [(row, start, end, CODES[kind]) for row, start, end, kind in findings]
        table = np.array(flat, np.int64).reshape(-1, 4)
        return cls(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(np.int8))

    def counts(self) -> dict[Kind, int]:
        """How many there are of each kind that there is, in the order of KINDS."""
        numbers = np.bincount(self.kind, minlength=len(KINDS))
        return {KINDS[code]: int(numbers[code]) for code in np.flatnonzero(numbers)}

    def of_kinds(self, kinds: frozenset[Kind]) -> Findings:
        chosen = np.isin(self.kind, [CODES[kind] for kind in kinds])
        return Findings(self.row[chosen], self.start[chosen], self.end[chosen], self.kind[chosen])

    def of_rows(self, chosen: np.ndarray) -> Findings:
        """Those in the rows for which `chosen` is true."""
        there = chosen[self.row]
        return Findings(self.row[there], self.start[there], self.end[there], self.kind[there])

    def rows(self) -> np.ndarray:
        """The rows in which anything was found."""
        return np.unique(self.row)


def apart(hits: Iterable[Hit]) -> list[Hit]:
    """Of hits that overlap, a secret wins over personal data, then the longest, then the more specific kind."""
    chosen: list[Hit] = []
    for hit in sorted(set(hits), key=_rank):
        place = bisect_left(chosen, hit)
        if (place == 0 or chosen[place - 1].end <= hit.start) and (
            place == len(chosen) or hit.end <= chosen[place].start
        ):
            insort(chosen, hit)
    return chosen


def _rank(hit: Hit) -> tuple[bool, int, int, int]:
    return hit.kind not in SECRETS, hit.start - hit.end, CODES[hit.kind], hit.start


def in_characters(segment: Segment, hits: list[Hit]) -> Iterator[Finding]:
    """Ordered hits, with their rows, as spans of characters."""
    places = segment.places(np.array([hit.start for hit in hits], np.int64)).tolist()
    first = 0
    while first < len(hits):
        stop, place = first, places[first]
        while stop < len(hits) and places[stop] == place:
            stop += 1
        begin = int(segment.starts[place])
        bounds = [bound - begin for hit in hits[first:stop] for bound in (hit.start, hit.end)]
        text = segment.data[begin : begin + bounds[-1]]
        if not text.isascii():
            continued = np.frombuffer(text, np.uint8) & 0xC0 == 0x80
            bounds = (np.array(bounds) - np.concatenate([[0], np.cumsum(continued)])[bounds]).tolist()
        pairs = zip(bounds[::2], bounds[1::2], hits[first:stop], strict=True)
        yield from (Finding(segment.first_row + place, start, end, hit.kind) for start, end, hit in pairs)
        first = stop


def joined(parts: Iterable[Iterable[Finding]]) -> Findings:
    return Findings.of(chain.from_iterable(parts))
