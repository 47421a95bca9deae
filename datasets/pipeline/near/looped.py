"""Shingles, sketches, buckets, and similarities by compiled loops: this makes the room that loops.py writes into."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

from datasets.pipeline.near import buckets, loops
from datasets.pipeline.near.shingles import (
    LONG_TOKEN_BYTES,
    TOKEN_BYTES,
    U64,
    WORD,
    Block,
    Ints,
    Shingles,
    hash_of_long,
    odd_factors,
)
from datasets.pipeline.near.sketch import U32, Sketcher

_INSIDE = TOKEN_BYTES.astype(np.uint8)
_FACTOR = np.uint64(secrets.randbits(64) | 1)


def shingles(block: Block, tokens: int) -> Shingles:
    """As shingles.shingles has them, and so on for the others here."""
    size, documents = len(block.data), len(block.starts) - 1
    words = np.zeros(size // WORD + 2, np.uint64)
    data = words.view(np.uint8)
    data[:size] = block.data
    hashes = np.empty((size + documents) // 2, np.uint64)  # a token and what follows it are two bytes
    first_words = np.empty(documents + 1, np.int64)
    borders = np.empty(int(np.diff(block.starts).max(initial=0)) + 2, np.int64)
    long = np.empty((size // LONG_TOKEN_BYTES + 1, 3), np.int64)
    many = loops.hash_tokens(words, data, _INSIDE, block.starts, borders, hashes, first_words, long)
    for token, begin, end in long[:many].tolist():
        hashes[token] = hash_of_long(data[begin:end])
    made = np.zeros(first_words[-1], np.uint64)
    starts = np.empty(documents + 1, np.int64)
    loops.combine(hashes, first_words, odd_factors(tokens, seed=1), made, starts)
    return Shingles(made[: starts[-1]], starts)


def sketches(sketcher: Sketcher, shingles: Shingles) -> tuple[U32, U64]:
    documents, slots = len(shingles.counts), sketcher.bands * sketcher.rows
    keys = np.empty((documents, sketcher.bands), np.uint32)
    bits = np.zeros((documents, -(-slots // 64)), np.uint64)
    loops.sketch(
        shingles.hashes,
        shingles.starts,
        sketcher.rounds(shingles.counts),
        sketcher.turns,
        sketcher.others,
        sketcher.folds,
        np.empty(slots, np.uint32),
        keys,
        bits.view(np.uint8),
    )
    return keys, bits


def sharing(keys: U32, rows: Ints) -> tuple[Ints, Ints]:
    """Most keys are nobody else's: only the others are sorted, and some whose first bits are the same by chance."""
    bits = min(max((16 * len(keys)).bit_length(), 6), 32)
    once, twice = np.zeros((2, 1 << bits - 6), np.uint64)
    places = np.empty(len(keys) + 1, np.int64)
    found = places[: loops.meeting(keys, np.uint64(bits), once, twice, places)]
    return buckets.sharing(keys[found], rows[found])


def jaccard(shingles: Shingles, first: Ints, second: Ints) -> npt.NDArray[np.float64]:
    counts = shingles.counts
    most = int((counts[first] + counts[second]).max(initial=1))
    table = np.empty(1 << (2 * most - 1).bit_length(), np.uint64)
    similarity = np.empty(len(first), np.float64)
    loops.overlaps(shingles.hashes, shingles.starts, first, second, table, _FACTOR, similarity)
    return similarity
