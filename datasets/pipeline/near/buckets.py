"""Buckets: rows that have the same key, and each one's bucket by its number. The rows of a bucket are neighbours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datasets.pipeline.near.shingles import U64, Ints
from datasets.pipeline.near.sketch import U32


def sharing(keys: U32, rows: Ints) -> tuple[Ints, Ints]:
    """The rows whose key another one has, too, bucket by bucket, in order, and their buckets' numbers, which ascend."""
    both = packed(keys, rows)
    both.sort()
    keys = (both >> np.uint64(32)).astype(np.uint32)
    as_before = np.zeros(len(keys) + 1, np.bool_)
    as_before[1:-1] = keys[1:] == keys[:-1]
    shared = as_before[:-1] | as_before[1:]
    return (both[shared] & np.uint64(0xFFFFFFFF)).astype(np.int64), np.cumsum(~as_before[:-1][shared])


def sizes_of(buckets: Ints) -> Ints:
    """Of each row's bucket."""
    return np.bincount(buckets)[buckets] if len(buckets) else buckets


def divided(rows: Ints, buckets: Ints, keys: npt.NDArray) -> tuple[Ints, Ints]:
    """The same rows in buckets of those that have the same key, too."""
    _, numbers = np.unique(packed(buckets, keys), return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    return rows[order], numbers[order]


def packed(high: npt.NDArray, low: npt.NDArray) -> U64:
    both = high.astype(np.uint64)
    both <<= np.uint64(32)
    both |= low.astype(np.uint64)
    return both
