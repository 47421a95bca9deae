"""The exact Jaccard similarity of pairs of documents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datasets.pipeline.near.shingles import Ints, Shingles

MAX_PAIRS = 4096
PAIR_BITS = 12  # of a key of 64 bits; one says which of the two it comes from, the rest is the shingle's hash


def jaccard(shingles: Shingles, first: Ints, second: Ints) -> npt.NDArray[np.float64]:
    """Of the documents first[i] and second[i], for up to 4,096 pairs: |A & B| / |A | B|, over the sets of their shingles.

    Exact, unless two of a pair's shingles share 51 bits of their hashes. Each document has at least one shingle.
    """
    pairs = len(first)
    assert pairs <= MAX_PAIRS
    both = np.stack([first, second], axis=1).ravel()
    counts = shingles.counts[both]
    ends = np.cumsum(counts)
    places = np.arange(ends[-1]) - np.repeat(ends - counts - shingles.starts[both], counts)
    owners = np.repeat(np.arange(2 * pairs, dtype=np.uint64), counts)
    keys = shingles.hashes[places] >> np.uint64(PAIR_BITS) & ~np.uint64(1)
    keys |= (owners >> np.uint64(1)) << np.uint64(64 - PAIR_BITS) | owners & np.uint64(1)
    keys.sort()
    keys = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    shared = np.concatenate([[False], keys[1:] >> np.uint64(1) == keys[:-1] >> np.uint64(1)])
    starts = np.searchsorted(keys, np.arange(pairs, dtype=np.uint64) << np.uint64(64 - PAIR_BITS))
    sizes = np.diff(np.append(starts, len(keys)))  # |A| + |B|
    common = np.add.reduceat(shared.astype(np.int64), starts)
    return common / (sizes - common)
