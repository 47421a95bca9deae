"""What was found: rows, spans, and kinds as arrays."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
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

    def between(self, first: int, stop: int) -> Findings:
        """Those in rows from `first` on and before `stop`; `first` is the row 0 of what is returned."""
        there = slice(*np.searchsorted(self.row, (first, stop)).tolist())
        return Findings(self.row[there] - first, self.start[there], self.end[there], self.kind[there])

    def rows(self) -> np.ndarray:
        """The rows in which anything was found."""
        return np.unique(self.row)


def apart(hits: Iterable[Hit]) -> list[Hit]:
    """Of hits that overlap, a secret wins over personal data, then the longest, then the more specific kind."""
    chosen: list[Hit] = []
    for group in _overlapping(hits):
        chosen += group if len(group) == 1 else _apart(group)
    return chosen


def _overlapping(hits: Iterable[Hit]) -> Iterator[list[Hit]]:
    """Hits in their order, those together that overlap one another, or a third one."""
    group: list[Hit] = []
    end = 0
    for hit in sorted(set(hits)):
        if group and hit.start >= end:
            yield group
            group = []
        group.append(hit)
        end = max(end, hit.end)
    if group:
        yield group


def _apart(hits: list[Hit]) -> list[Hit]:
    chosen: list[Hit] = []
    for hit in sorted(hits, key=_rank):
        place = bisect_left(chosen, hit)
        if (place == 0 or chosen[place - 1].end <= hit.start) and (
            place == len(chosen) or hit.end <= chosen[place].start
        ):
            insort(chosen, hit)
    return chosen


def _rank(hit: Hit) -> tuple[bool, int, int, int]:
    return hit.kind not in SECRETS, hit.start - hit.end, CODES[hit.kind], hit.start


def in_characters(segment: Segment, hits: list[Hit]) -> Findings:
    """Ordered hits, with their rows, as spans of characters."""
    if not hits:
        return Findings.of(())
    starts, ends = (np.array(bounds, np.int64) for bounds in zip(*((hit.start, hit.end) for hit in hits), strict=True))
    places = segment.places(starts)
    begin = segment.starts[places]
    starts, ends = starts - begin, ends - begin
    first = np.flatnonzero(np.diff(places, prepend=-1))
    last = np.append(first[1:], len(hits))
    reach = zip(first.tolist(), last.tolist(), begin[first].tolist(), ends[last - 1].tolist(), strict=True)
    for one, stop, at, length in reach:
        text = segment.data[at : at + length]
        if not text.isascii():
            done = characters = 0
            for place, bounds in product(range(one, stop), (starts, ends)):
                bound = int(bounds[place])
                characters += _characters(text[done:bound])
                done, bounds[place] = bound, characters
    codes = np.array([CODES[hit.kind] for hit in hits], np.int8)
    return Findings(segment.first_row + places, starts, ends, codes)


def _characters(text: bytes) -> int:
    """How many characters of UTF-8 begin there."""
    return len(text.translate(None, delete=_CONTINUATION))


_CONTINUATION = bytes(range(0x80, 0xC0))


def joined(parts: Iterable[Findings]) -> Findings:
    """One behind the other: rows are in order throughout."""
    columns = [(part.row, part.start, part.end, part.kind) for part in parts]
    return Findings(*map(np.concatenate, zip(*columns, strict=True))) if columns else Findings.of(())
