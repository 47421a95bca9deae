"""The index of near-duplicates: band keys while documents pass, and clusters once all have passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasets.pipeline.near.arithmetic import PASSES, Arithmetic
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.search import Search, TextsOf
from datasets.pipeline.near.shingles import U64, Ints, blocks, byte_lengths
from datasets.pipeline.near.sketch import U32, Sketcher

AT_A_TIME = 16 * 1024  # documents that are told of


@dataclass(frozen=True)
class Clusters:
    """Each row that has a near-duplicate and is not the one to keep, in order.

    member      rows to leave out
    kept        for each, the row of its cluster that is kept
    similarity  for each, the highest exact Jaccard similarity with another row of its cluster among those that were computed: at
                least the threshold. With the row kept it may be lower, where a chain of near-duplicates lies between the two.
    verified    how many pairs were compared exactly
    """

    member: Ints
    kept: Ints
    similarity: npt.NDArray[np.float32]
    verified: int

    def without(self, rows: Ints) -> Clusters:
        """Those of which none of `rows` is the one that is kept."""
        left = ~np.isin(self.kept, rows)
        return Clusters(self.member[left], self.kept[left], self.similarity[left], self.verified)


@dataclass(frozen=True)
class Sketched:
    """Documents by their numbers: keys (bands, documents), bits (documents, words), and sizes in bytes."""

    numbers: Ints
    keys: U32
    bits: U64
    sizes: U32


class NearIndex:
    """Documents are added in order, and known by their number from 0 on. What is kept of each are band keys, bits, and its size.

    That is 205 bytes a document, with the choices as they are by default; `clusters` takes up to 60 more. The result
    depends on the documents and their order alone, not on the bounds of batches, nor on whose arithmetic it is.
    """

    def __init__(self, choices: NearDedup, arithmetic: Arithmetic = PASSES, documents: int = 0) -> None:
        """For `documents` there is room from the beginning; more than that are copied to a larger one, now and then."""
        self.choices, self.arithmetic = choices, arithmetic
        self._sketcher = Sketcher(choices)
        self.rows = 0
        words = -(-choices.bands * choices.rows // 64)
        self._keys: U32 = np.empty((choices.bands, documents), np.uint32)  # that of a band, one after another
        self._bits: U64 = np.empty((documents, words), np.uint64)
        self._sizes: U32 = np.empty(documents, np.uint32)
        self._searched: npt.NDArray[np.bool_] = np.empty(documents, np.bool_)

    @property
    def size_bytes(self) -> int:
        kept = (self._keys.T, self._bits, self._sizes, self._searched)
        return sum(array[: self.rows].nbytes for array in kept)

    def add(self, texts: pa.Array | pa.ChunkedArray) -> None:
        """Take in a batch of documents: strings or large strings. A null, or a text without tokens, is no near-duplicate."""
        for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
            self._make_room(self.rows + len(chunk))
            self._sizes[self.rows : self.rows + len(chunk)] = byte_lengths(chunk)
            for block in blocks(chunk):
                found = self.arithmetic.shingles(block, self.choices.shingle_tokens)
                keys, bits = self.arithmetic.sketches(self._sketcher, found)
                begin, end = self.rows, self.rows + len(keys)
                self._keys[:, begin:end], self._bits[begin:end] = keys.T, bits
                self._searched[begin:end] = found.counts > 0
                self.rows = end

    def _make_room(self, documents: int) -> None:
        if documents > len(self._sizes):
            room = max(documents, 2 * len(self._sizes))
            self._keys = _larger(self._keys.T, room, self.rows, "F").T
            self._bits, self._sizes = _larger(self._bits, room, self.rows), _larger(self._sizes, room, self.rows)
            self._searched = _larger(self._searched, room, self.rows)

    def clusters(
        self,
        texts_of: TextsOf,
        quality: npt.NDArray | None = None,
        each_band: Callable[[float], None] = lambda share: None,
    ) -> Clusters:
        """Near-duplicates, each connected with the others of its cluster by pairs whose exact similarity reaches the threshold.

        `texts_of` gives documents again, by their numbers in ascending order. Of a cluster the row of the highest quality is
        kept, of several the longest in bytes, of several the first. `each_band` hears the share of the bands that were looked through.
        """
        if quality is not None and len(quality) != self.rows:
            raise ValueError(f"there are {self.rows} documents, and the quality of {len(quality)}")
        sizes = self._sizes[: self.rows]
        search = Search(self.choices, sizes, self._bits[: self.rows], texts_of, self.arithmetic)
        searched = self.comparable()
        for band in range(self.choices.bands):
            search.look_through(band, self._keys_of, searched)
            each_band((band + 1) / self.choices.bands)
        rows, roots = search.forest.clusters()
        order = np.lexsort((rows, -sizes[rows].astype(np.int64), _descending(quality, rows), roots))
        rows, roots = rows[order], roots[order]
        kept = rows[np.searchsorted(roots, roots)]
        members = np.flatnonzero(rows != kept)
        members = members[np.argsort(rows[members])]
        return Clusters(rows[members], kept[members], search.similarity[rows[members]], search.verified)

    def comparable(self) -> Ints:
        """The documents that could have near-duplicates, in order."""
        return np.flatnonzero(self._searched[: self.rows])

    def sketched(self, documents: Ints) -> Iterator[Sketched]:
        """What is known of some documents, which ascend, part by part."""
        for begin in range(0, len(documents), AT_A_TIME):
            numbers = documents[begin : begin + AT_A_TIME]
            yield Sketched(numbers, self._keys[:, numbers], self._bits[numbers], self._sizes[numbers])

    def _keys_of(self, band: int) -> U32:
        """Of all documents; after the last band comes the first one."""
        return self._keys[band % self.choices.bands, : self.rows]


def _descending(quality: npt.NDArray | None, rows: Ints) -> npt.NDArray:
    return np.zeros(len(rows)) if quality is None else -np.asarray(quality, np.float64)[rows]


def _larger(array: npt.NDArray, room: int, used: int, order: Literal["C", "F"] = "C") -> npt.NDArray:
    larger = np.empty((room, *array.shape[1:]), array.dtype, order)
    larger[:used] = array[:used]
    return larger
