"""The index of near-duplicates: band keys while documents pass, and clusters once all have passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasets.pipeline.near.arithmetic import PASSES, Arithmetic
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.search import Search, TextsOf
from datasets.pipeline.near.shingles import U64, Ints, blocks, byte_lengths
from datasets.pipeline.near.sketch import U32, Sketcher


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

    That is 205 bytes a document, with the choices as they are by default; `clusters` takes up to 90 more. The result
    depends on the documents and their order alone, not on the bounds of batches, nor on whose arithmetic it is.
    """

    def __init__(self, choices: NearDedup, arithmetic: Arithmetic = PASSES) -> None:
        self.choices, self.arithmetic = choices, arithmetic
        self._sketcher = Sketcher(choices)
        self._keys: list[U32] = []  # (bands, documents) of each batch
        self._bits: list[U64] = []  # (documents, words)
        self._sizes: list[U32] = []
        self._searched: list[npt.NDArray[np.bool_]] = []

    @property
    def rows(self) -> int:
        return sum(map(len, self._sizes))

    @property
    def size_bytes(self) -> int:
        kept: tuple[list[npt.NDArray], ...] = (self._keys, self._bits, self._sizes, self._searched)
        return sum(array.nbytes for arrays in kept for array in arrays)

    def add(self, texts: pa.Array | pa.ChunkedArray) -> None:
        """Take in a batch of documents: strings or large strings. A null, or a text without tokens, is no near-duplicate."""
        for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
            if not len(chunk):
                continue
            found = [self.arithmetic.shingles(block, self.choices.shingle_tokens) for block in blocks(chunk)]
            keys, bits = zip(*(self.arithmetic.sketches(self._sketcher, each) for each in found), strict=True)
            self._keys.append(np.concatenate(keys).T.copy())
            self._bits.append(np.concatenate(bits))
            self._sizes.append(byte_lengths(chunk).astype(np.uint32))
            self._searched.append(np.concatenate([each.counts > 0 for each in found]))

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
        sizes = _joined(self._sizes, np.uint32)
        self._bits = [np.concatenate(self._bits)] if self._bits else []  # in place of the batches': there is one copy
        bits = self._bits[0] if self._bits else np.zeros((0, 1), np.uint64)
        search = Search(self.choices, sizes, bits, texts_of, self.arithmetic)
        searched = np.flatnonzero(_joined(self._searched, np.bool_))
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
        return np.flatnonzero(_joined(self._searched, np.bool_))

    def sketched(self, documents: Ints) -> Iterator[Sketched]:
        """What is known of some documents, which ascend, batch by batch."""
        bits = _joined(self._bits, np.uint64)
        start = 0
        for keys, sizes in zip(self._keys, self._sizes, strict=True):
            first, last = np.searchsorted(documents, (start, start + len(sizes)))
            numbers = documents[first:last]
            here = numbers - start
            yield Sketched(numbers, keys[:, here], bits[numbers], sizes[here])
            start += len(sizes)

    def _keys_of(self, band: int) -> U32:
        """Of all documents; after the last band comes the first one."""
        return _joined([keys[band % self.choices.bands] for keys in self._keys], np.uint32)


def _descending(quality: npt.NDArray | None, rows: Ints) -> npt.NDArray:
    return np.zeros(len(rows)) if quality is None else -np.asarray(quality, np.float64)[rows]


def _joined(arrays: list[npt.NDArray], kind: type[np.generic]) -> npt.NDArray:
    return np.concatenate(arrays) if arrays else np.zeros(0, kind)
