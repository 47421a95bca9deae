"""Rows of text as one run of bytes, so that positions in all of them are found at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

SEGMENT_BYTES = 4 << 20  # what a cache holds: arrays of a segment are made and dropped many times
PADDING = b"\n" * 64

Positions = np.ndarray  # int64, in the bytes of a segment


def byte_set(characters: bytes) -> np.ndarray:
    """A table over all bytes: whether it is one of these."""
    table = np.zeros(256, np.bool_)
    table[list(characters)] = True
    return table


def search_of(literals: list[str]) -> pl.Expr:
    """Up to 64 literals of at least three bytes are searched for with vector instructions.

    More, or one that is shorter, would make the search several times slower.
    """
    assert len(literals) <= 64 and min(map(len, literals)) >= 3
    return pl.col("").str.find_many(literals, leftmost=True)


@dataclass(frozen=True)
class Segment:
    """Some rows, each followed by a line feed, so that nothing is found across two of them.

    `starts` has one more entry than there are rows: the row at place n is data[starts[n] : starts[n + 1] - 1].
    `data` goes on with line feeds (PADDING), which are what is looked at before the first row and behind the last one.
    """

    first_row: int
    lines: pa.Array
    data: bytes
    starts: Positions

    @cached_property
    def codes(self) -> np.ndarray:
        return np.frombuffer(self.data, np.uint8)

    def places(self, positions: Positions) -> Positions:
        """The place of the row that holds each position."""
        return np.searchsorted(self.starts, positions, side="right") - 1

    def at(self, positions: Positions) -> np.ndarray:
        """The bytes there; as many places before the first row as PADDING has, line feeds."""
        return self.codes[positions]

    def positions_of(self, literals: pl.Expr) -> Positions:
        """Where one of the literals begins; of literals that overlap, the leftmost. See `search_of`."""
        rows = pl.DataFrame({"": pl.from_arrow(self.lines)})
        found = rows.select(literals).to_series().to_arrow()
        return np.repeat(self.starts[:-1], found.value_lengths().to_numpy()) + found.flatten().to_numpy()

    def pairs(self, pair: bytes) -> Positions:
        """Where these two bytes stand, of which the second is the rarer one."""
        at = np.flatnonzero(self.codes == pair[1]) - 1
        return at[self.at(at) == pair[0]]


def segments(texts: pa.Array | pa.ChunkedArray) -> Iterator[Segment]:
    """The rows in their order; a null is an empty row, for nothing is found in it."""
    first_row = 0
    for rows in map(_not_null, _chunks(texts)):
        ends = np.cumsum(pc.binary_length(rows).to_numpy())
        place = 0
        while place < len(rows):
            before = ends[place - 1] if place else 0
            stop = max(place + 1, int(np.searchsorted(ends, before + SEGMENT_BYTES, side="right")))
            yield _segment(first_row + place, rows[place:stop])
            place = stop
        first_row += len(rows)


def _chunks(texts: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    """One, unless they are large: each segment has costs of its own."""
    if isinstance(texts, pa.Array):
        return [texts]
    return [texts.combine_chunks()] if texts.nbytes <= SEGMENT_BYTES else texts.chunks


def _not_null(texts: pa.Array) -> pa.Array:
    rows = texts.cast(pa.large_string())
    return pc.fill_null(rows, "") if rows.null_count else rows


def _segment(first_row: int, rows: pa.Array) -> Segment:
    empty, feed = (pa.scalar(text, pa.large_string()) for text in ("", "\n"))
    lines = pc.binary_join_element_wise(rows, empty, feed)
    starts = np.concatenate([[0], np.cumsum(pc.binary_length(lines).to_numpy())])
    offset = int(np.frombuffer(lines.buffers()[1], np.int64)[lines.offset])
    data = b"".join((lines.buffers()[2].slice(offset, int(starts[-1])), PADDING))
    return Segment(first_row, lines, data, starts)
