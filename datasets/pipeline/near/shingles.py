"""Documents as sets of shingles: hashes of 64 bits, for a whole block of documents at once.

A token is a maximal run of letters, digits, underscores, and bytes beyond ASCII; ASCII letters count as lower case. A
shingle is so many successive tokens. A document with fewer tokens is one shingle of all it has; one without tokens has none.

Two shingles that differ share a hash with a probability of 2^-64; sets of shingles are compared by their hashes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

U64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

BLOCK_BYTES = 512 * 1024  # what is worked on at a time stays in the processor's cache
LONG_TOKEN_BYTES = 64  # a longer token is hashed by itself
WORD = 8  # loops.py is compiled with this number and those around it, and kept: who changes one changes that file, too
ONCE, TWICE = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
TOKEN_BYTES = np.array(
    [byte >= 128 or chr(byte).isalnum() or byte == ord("_") for byte in range(256)]
)  # of lower case, too
_FIRST_BYTES = np.array([(1 << 8 * kept) - 1 for kept in range(WORD + 1)], np.uint64)


@dataclass(frozen=True)
class Shingles:
    """The shingles of documents in their order, repetitions included: those of document d are hashes[starts[d]:starts[d + 1]]."""

    hashes: U64
    starts: Ints

    @property
    def counts(self) -> Ints:
        return np.diff(self.starts)


@dataclass(frozen=True)
class Block:
    """Documents in one buffer: document d is data[starts[d]:starts[d + 1]]."""

    data: Bytes
    starts: Ints


def blocks(texts: pa.Array | pa.ChunkedArray, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """The documents in order, in blocks of at most so many bytes, or of one document. A null is an empty document."""
    for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
        if len(chunk):
            yield from _blocks(chunk, block_bytes)


def byte_lengths(texts: pa.Array) -> Ints:
    return np.diff(_buffers(texts)[1])


def shingles(block: Block, tokens: int) -> Shingles:
    words, first_words = _words(block)
    counts = np.diff(first_words)
    combined = _combined(words, tokens)
    short = np.flatnonzero((counts > 0) & (counts < tokens))
    combined[first_words[short]] = _combined_short(words, first_words[short], counts[short], tokens)
    kept = np.ones(len(words), np.bool_)
    for back in range(1, tokens):  # these would reach into the next document
        kept[first_words[1:][counts > back] - back] = False
    starts = np.zeros(len(block.starts), np.int64)
    np.cumsum(np.where(counts >= tokens, counts - tokens + 1, np.minimum(counts, 1)), out=starts[1:])
    return Shingles(mixed(combined[kept]), starts)


def shingles_of(
    texts: pa.Array | pa.ChunkedArray, tokens: int, of_block: Callable[[Block, int], Shingles] = shingles
) -> Shingles:
    """The shingles of all documents at once."""
    found = [of_block(block, tokens) for block in blocks(texts)]
    if not found:
        return Shingles(np.zeros(0, np.uint64), np.zeros(1, np.int64))
    counts = np.concatenate([each.counts for each in found])
    return Shingles(np.concatenate([each.hashes for each in found]), np.concatenate([[0], np.cumsum(counts)]))


def mixed(values: U64) -> U64:
    """A bijection after which each bit depends on all of them; in place. (The finaliser of splitmix64, constants and all.)"""
    values ^= values >> np.uint64(30)
    values *= ONCE
    values ^= values >> np.uint64(27)
    values *= TWICE
    values ^= values >> np.uint64(31)
    return values


def odd_factors(count: int, seed: int) -> U64:
    return mixed(np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 32)) | np.uint64(1)


def _blocks(texts: pa.Array, block_bytes: int) -> Iterator[Block]:
    data, offsets = _buffers(texts)
    first = 0
    while first < len(texts):
        last = int(np.searchsorted(offsets, offsets[first] + block_bytes, side="right")) - 1
        last = min(max(last, first + 1), len(texts))
        yield Block(data[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first])
        first = last


def _buffers(texts: pa.Array) -> tuple[Bytes, Ints]:
    """All bytes of the array's buffer, and where in it each document begins."""
    if texts.null_count or not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        texts = texts.cast(pa.large_string()).fill_null("")
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    _, offsets, data = texts.buffers()
    width = np.dtype(kind).itemsize
    starts = np.frombuffer(offsets, kind, len(texts) + 1, texts.offset * width).astype(np.int64)
    return np.frombuffer(data if data is not None and data.size else b"", np.uint8), starts


def _words(block: Block) -> tuple[U64, Ints]:
    """A hash for each token of the block, and the number of each document's first one."""
    size = len(block.data)
    lower = np.zeros(size + WORD, np.uint8)  # what follows the last byte is read with it, and masked
    lower[:size] = block.data
    lower += ((lower - np.uint8(ord("A"))) < 26).view(np.uint8) << np.uint8(5)
    inside = (lower - np.uint8(ord("a"))) < 26
    inside |= (lower - np.uint8(ord("0"))) < 10
    inside |= lower == ord("_")
    inside |= lower >= 128
    begins, ends = inside.copy(), ~inside
    begins[1:] &= ends[:-1]
    ends[1:] &= inside[:-1]
    ends[0] = False
    borders = block.starts[1:-1]  # a token ends with its document
    borders = borders[(borders > 0) & (borders < size)]
    begins[borders] = inside[borders]
    ends[borders] = inside[borders - 1]
    begin, end = np.flatnonzero(begins), np.flatnonzero(ends)
    return _hashed(lower, begin, end), np.searchsorted(begin, block.starts)


def _hashed(data: Bytes, begin: Ints, end: Ints) -> U64:
    """Tokens' hashes, eight bytes of each at a time."""
    loads = np.ndarray(len(data) - WORD + 1, np.uint64, data, strides=(1,))
    sizes = end - begin
    hashes = mixed(loads[begin] & _FIRST_BYTES[np.minimum(sizes, WORD)])
    left = np.flatnonzero(sizes > WORD)
    for place in range(WORD, LONG_TOKEN_BYTES, WORD):
        if not len(left):
            break
        more = loads[begin[left] + place] & _FIRST_BYTES[np.minimum(sizes[left] - place, WORD)]
        hashes[left] = mixed(hashes[left] * ONCE + more)
        left = left[sizes[left] > place + WORD]
    for token in left:
        hashes[token] = hash_of_long(data[begin[token] : end[token]])
    return hashes


def hash_of_long(token: Bytes) -> int:
    return int.from_bytes(blake2b(token.tobytes(), digest_size=WORD).digest())


def _combined(words: U64, tokens: int) -> U64:
    """At each place the linear combination of the words from there on, the block's end counting as zeros."""
    padded = np.concatenate([words, np.zeros(tokens - 1, np.uint64)])
    combined = np.zeros(len(words), np.uint64)
    for place, factor in enumerate(odd_factors(tokens, seed=1)):
        combined += padded[place : place + len(words)] * factor
    return combined


def _combined_short(words: U64, first: Ints, counts: Ints, tokens: int) -> U64:
    """The same for documents that have fewer words."""
    combined = np.zeros(len(first), np.uint64)
    for place, factor in enumerate(odd_factors(tokens, seed=1)[:-1]):
        there = counts > place
        combined[there] += words[first[there] + place] * factor
    return combined
