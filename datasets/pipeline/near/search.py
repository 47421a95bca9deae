"""The search for pairs that share a band key, and their exact comparison: linear in the documents, whatever they are.

In a bucket, all rows with one key in one band, rows are not compared with each other but with a representative: its first row.
Those that are not similar to it try again among themselves, four times in all, and rows of one cluster are one row to a bucket.
So up to five rows meet in every pair, and a larger bucket costs four comparisons a row at most: 100,000 copies that each have
another word of sixty changed take 126,465 comparisons, and 100,000 texts that share one key by chance 99,999.

What that leaves out is a pair that meets only in buckets of more than five clusters, with neither of the two a representative.
Of those that try again in such a bucket only rows stay together that share the next band's key, too: the more similar two rows
are, the more of their keys are the same. Six of a thousand pairs at the threshold are left out by their bits, which spares
most others their exact comparison. And a row that was compared exactly 24 times in vain is not compared any more, unless as a
representative. In a thousand documents of which every two have a similarity of .6, 96 % of the pairs with .72 are found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasets.pipeline.near.arithmetic import PASSES, Arithmetic
from datasets.pipeline.near.buckets import divided, packed, sizes_of
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.forest import Forest
from datasets.pipeline.near.shingles import U64, Ints, shingles_of
from datasets.pipeline.near.similarity import MAX_PAIRS
from datasets.pipeline.near.sketch import U32

TextsOf = Callable[[Ints], pa.Array | pa.ChunkedArray]

ATTEMPTS = 4  # representatives of a bucket
MAX_FAILURES = 24  # comparisons of a row that came to nothing
MAX_COMPARED_BYTES = 1024 * 1024  # of text at a time; a pair of longer ones is compared alone
DEVIATIONS = 2.5  # 6 of 1,000 pairs at the threshold lie beyond, and less than one of 100,000 at 1.1 times of it
LOOKED_AT = 64 * 1024  # pairs at a time
NONE = np.uint32(0xFFFFFFFF)


class Search:
    """Goes through the bands one after another; what it finds is in `forest` and `similarity`."""

    def __init__(
        self, choices: NearDedup, sizes: U32, bits: U64, texts_of: TextsOf, arithmetic: Arithmetic = PASSES
    ) -> None:
        """`sizes` in bytes and `bits` are those of all documents."""
        rows = len(sizes)
        self.forest = Forest(rows)
        self.similarity = np.zeros(rows, np.float32)
        self.verified = 0
        self._sizes, self._bits, self._texts_of = sizes, bits, texts_of
        self._threshold, self._tokens = choices.threshold, choices.shingle_tokens
        self._arithmetic = arithmetic
        self._most_bits_apart = most_bits_apart(choices)
        self._failures = np.zeros(rows, np.uint8)
        self._failed_with = np.full(rows, NONE, np.uint32)  # the last one: mostly it comes again

    def look_through(self, band: int, keys_of: Callable[[int], U32], searched: Ints) -> None:
        """Join those of the rows `searched` that share their key in this band and are similar."""
        rows, buckets = self._arithmetic.sharing(keys_of(band)[searched], searched)
        for attempt in range(ATTEMPTS):
            rows, buckets = self._one_a_cluster(rows, buckets)
            first = np.searchsorted(buckets, buckets)  # where each one's bucket begins
            others = first != np.arange(len(rows))
            representatives, rows, buckets = rows[first[others]], rows[others], buckets[others]
            apart = ~self._compare(representatives, rows)
            rows, buckets = rows[apart], buckets[apart]
            large = sizes_of(buckets) > ATTEMPTS - attempt
            if large.any():
                rows, buckets = divided(rows, buckets, np.where(large, keys_of(band + attempt + 1)[rows], 0))

    def _one_a_cluster(self, rows: Ints, buckets: Ints) -> tuple[Ints, Ints]:
        """Of each bucket the first row of each cluster."""
        _, first = np.unique(packed(buckets, self.forest.roots(rows)), return_index=True)
        first.sort()
        return rows[first], buckets[first]

    def _compare(self, representatives: Ints, rows: Ints) -> npt.NDArray[np.bool_]:
        """Which rows are similar to their representatives; those are joined."""
        similar = np.zeros(len(rows), np.bool_)
        wanted = np.flatnonzero((self._failures[rows] < MAX_FAILURES) & (self._failed_with[rows] != representatives))
        wanted = wanted[self._resemble(representatives[wanted], rows[wanted])]
        wanted = wanted[np.argsort(representatives[wanted], kind="stable")]
        for part in self._parts(representatives, rows, wanted):
            first, second = representatives[part], rows[part]
            found = self._similarity(first, second)
            reached = found >= self._threshold
            similar[part] = reached
            for side in (first, second):
                np.maximum.at(self.similarity, side[reached], found[reached].astype(np.float32))
            self.forest.join(first[reached], second[reached])
            np.add.at(self._failures, second[~reached], 1)
            self._failed_with[second[~reached]] = first[~reached]
        return similar

    def _resemble(self, first: Ints, second: Ints) -> npt.NDArray[np.bool_]:
        """Which pairs may well be similar, by their bits: an exact comparison takes a thousand times as long."""
        apart = np.zeros(len(first), np.int64)
        for begin in range(0, len(first), LOOKED_AT):
            part = slice(begin, begin + LOOKED_AT)
            apart[part] = np.bitwise_count(self._bits[first[part]] ^ self._bits[second[part]]).sum(axis=1)
        return apart <= self._most_bits_apart

    def _parts(self, first: Ints, second: Ints, wanted: Ints) -> Iterator[Ints]:
        """The pairs wanted, in parts that fit into memory."""
        ends = np.cumsum(self._sizes[first[wanted]].astype(np.int64) + self._sizes[second[wanted]])
        done = 0
        while done < len(wanted):
            before = ends[done - 1] if done else 0
            end = int(np.searchsorted(ends, before + MAX_COMPARED_BYTES, side="right"))
            end = min(max(end, done + 1), done + MAX_PAIRS)
            yield wanted[done:end]
            done = end

    def _similarity(self, first: Ints, second: Ints) -> npt.NDArray[np.float64]:
        rows = np.unique(np.concatenate([first, second]))
        found = shingles_of(self._texts_of(rows), self._tokens, self._arithmetic.shingles)
        self.verified += len(first)
        return self._arithmetic.jaccard(found, np.searchsorted(rows, first), np.searchsorted(rows, second))


def most_bits_apart(choices: NearDedup) -> float:
    """In how many of n bits two documents at the threshold may differ: n (1 - J) / 2, and 2.5 standard deviations."""
    bits, differ = choices.bands * choices.rows, (1 - choices.threshold) / 2
    return float(bits * differ + DEVIATIONS * (bits * differ * (1 - differ)) ** 0.5)
