"""What shingles.py, sketch.py, buckets.py, and similarity.py do with passes over whole arrays, as loops that numba compiles: the same numbers, bit for bit.

looped.py makes the room that they write into. No index is checked: each loop says what room it needs. An index of np.uint64 is taken as it is,
where a signed one might count from the end, and costs a branch. Arithmetic on hashes is of np.uint64 with np.uint64, which wraps; with a
signed number it would be that of floats.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datasets.pipeline.compiled import compiled
from datasets.pipeline.near.shingles import LONG_TOKEN_BYTES, ONCE, TWICE, U64, Bytes, Ints
from datasets.pipeline.near.sketch import EMPTY, RANK_BITS, U32

Floats = npt.NDArray[np.float64]

_A, _LETTERS, _CASE, _RANK = np.uint8(ord("A")), np.uint8(26), np.uint8(5), np.uint32(RANK_BITS)
_0, _1, _2, _3, _5, _6, _7, _13, _16 = (np.uint64(each) for each in (0, 1, 2, 3, 5, 6, 7, 13, 16))
_27, _30, _31, _32, _48, _63, _64 = (np.uint64(each) for each in (27, 30, 31, 32, 48, 63, 64))
_HALF, _ALL = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF)


@compiled("uint64(uint64)")
def mixed(value: np.uint64) -> np.uint64:
    value ^= value >> _30
    value *= ONCE
    value ^= value >> _27
    value *= TWICE
    return value ^ (value >> _31)


@compiled("uint64(uint64[::1], int64, int64)")
def loaded(words: U64, begin: int, size: int) -> np.uint64:
    """`size` bytes, from 1 to 8, from wherever they begin, as a little-endian number. The word after the first one's is read, too."""
    word, shift = np.uint64(begin) >> _3, (np.uint64(begin) & _7) << _3
    both = (words[word] >> shift) | ((words[word + _1] << _1) << (_63 - shift))
    return both & (_ALL >> (_64 - (np.uint64(size) << _3)))


@compiled("int64(uint64[::1], uint8[::1], uint8[::1], int64[::1], int64[::1], uint64[::1], int64[::1], int64[:, ::1])")
def hash_tokens(
    words: U64, data: Bytes, inside: Bytes, starts: Ints, borders: Ints, hashes: U64, first_words: Ints, long: Ints
) -> np.int64:
    """Hash the tokens of documents, and give the number of those that are too long for it, which `long` has: (token, begin, end).

    words        the bytes, and at least eight more; made lower case
    data         the same, byte by byte
    inside       256 times whether a byte is one of a token's
    starts       of documents in the bytes, and the last one's end: they ascend from 0
    borders      room for as many as the longest document has bytes, and two: a token begins or ends at most once a byte, and at the end
    hashes       room for one in two bytes, and for half a one a document: between two tokens is a byte
    first_words  as many as `starts`: of each document the number of its first token
    long         room for one in each LONG_TOKEN_BYTES bytes, and one
    """
    for place in range(len(data)):
        data[place] += np.uint8(np.uint8(data[place] - _A) < _LETTERS) << _CASE
    found = many = np.int64(0)
    for document in range(len(starts) - 1):
        first_words[document] = found
        start = starts[document]
        text = data[start : starts[document + 1]]
        before, count = np.uint8(0), _0
        for place in range(len(text)):
            now = inside[text[place]]
            borders[count] = place  # counts if something changes here: a branch that is hard to guess costs more
            count += np.uint64(now ^ before)
            before = now
        borders[count] = len(text)
        count += np.uint64(before)
        ours = hashes[found:]
        for token in range(np.int64(count >> _1)):
            begin, end = borders[2 * token], borders[2 * token + 1]
            size = end - begin
            value = mixed(loaded(words, start + begin, min(size, 8)))
            if size > 8:
                if size > LONG_TOKEN_BYTES:
                    long[many, 0], long[many, 1], long[many, 2] = found + token, start + begin, start + end
                    many += 1
                else:
                    for place in range(begin + 8, end, 8):
                        value = mixed(value * ONCE + loaded(words, start + place, min(end - place, 8)))
            ours[token] = value
        found += np.int64(count >> _1)
    first_words[len(starts) - 1] = found
    return many


@compiled("void(uint64[::1], int64[::1], uint64[::1], uint64[::1], int64[::1])")
def combine(hashes: U64, first_words: Ints, factors: U64, shingles: U64, starts: Ints) -> None:
    """Shingles of successive tokens' hashes, as many as there are `factors`.

    `shingles` has room for as many as there are tokens, and zeros; `starts` is as long as `first_words`.
    """
    made = 0
    for document in range(len(first_words) - 1):
        starts[document] = made
        first = first_words[document]
        count = first_words[document + 1] - first
        size = min(count, len(factors))
        some = min(count, count - size + 1)  # none of none
        ours = shingles[made : made + some]
        for place in range(size):
            tokens = hashes[first + place : first + place + some]
            for each in range(some):
                ours[each] += tokens[each] * factors[place]
        for each in range(some):
            ours[each] = mixed(ours[each])
        made += some
    starts[len(first_words) - 1] = made


@compiled(
    "void(uint64[::1], int64[::1], int64[::1], uint64[::1], int64[:, ::1], uint64[::1], uint32[::1], uint32[:, ::1], uint8[:, ::1])"
)
def sketch(
    shingles: U64, starts: Ints, rounds: Ints, turns: U64, others: Ints, folds: U64, slots: U32, keys: U32, bits: Bytes
) -> None:
    """Band keys and bits of documents, as Sketcher has them.

    rounds  of each document, at most as many as there are `turns`
    others  for each attempt and slot another slot: of one slot, all of them in some order
    slots   room for a signature: `len(folds)` slots for each band
    keys    (documents, bands)
    bits    (documents, bytes), zeros: a bit a slot at least
    """
    for document in range(len(starts) - 1):
        ours = shingles[starts[document] : starts[document + 1]]
        slots[:] = EMPTY if len(ours) else np.uint32(0)
        for turn in range(rounds[document]):
            number = np.uint32(turn) << _RANK
            for each in range(len(ours)):
                thrown = ours[each] * turns[turn]
                slot = ((thrown >> _48) * np.uint64(len(slots))) >> _16  # of 16 bits' share: less than all
                slots[slot] = min(slots[slot], np.uint32((thrown & _HALF) >> _5) | number)
        for band in range(keys.shape[1]):
            key = _0
            for row in range(len(folds)):
                slot = band * len(folds) + row
                value = slots[slot]
                attempt = 0
                while value == EMPTY and attempt < len(others):
                    value = slots[others[attempt, slot]]
                    attempt += 1
                key += np.uint64(value) * folds[row]
                bits[document, slot >> 3] |= np.uint8(value & np.uint32(1)) << np.uint8(7 - (slot & 7))
            keys[document, band] = np.uint32(mixed(key) >> _32)


@compiled("void(uint64[::1], int64[::1], int64[::1], int64[::1], uint64[::1], uint64, float64[::1])")
def overlaps(
    shingles: U64, starts: Ints, first: Ints, second: Ints, table: U64, factor: np.uint64, similarity: Floats
) -> None:
    """The Jaccard similarity of documents first[i] and second[i], by the first 51 bits of their shingles' hashes. None is empty.

    table   room for a power of two that is at least twice the shingles of any pair: so a place is free whenever one is looked for
    factor  odd and nobody's to know, as with a known one somebody could write documents whose shingles all want the same place
    """
    for pair in range(len(first)):
        sides = (first[pair], second[pair])
        count = starts[sides[0] + 1] - starts[sides[0]] + starts[sides[1] + 1] - starts[sides[1]]
        exponent = 1
        while (1 << exponent) < 2 * count:
            exponent += 1
        table[: 1 << exponent] = _0
        shift, last = np.uint64(64 - exponent), (1 << exponent) - 1
        common = distinct = np.int64(0)
        for side in range(2):
            mark = np.uint64(1 << side)
            for each in range(starts[sides[side]], starts[sides[side] + 1]):
                entry = (shingles[each] >> _13) << _2  # and above two bits for the sides that have it
                place = np.int64((shingles[each] >> _13) * factor >> shift)
                while table[place] != _0 and (table[place] & ~_3) != entry:
                    place = (place + 1) & last
                seen = table[place] & _3
                distinct += np.int64(seen == _0)
                common += np.int64((seen | mark) == _3 and seen != _3)
                table[place] = entry | seen | mark
        similarity[pair] = common / distinct


@compiled("int64(uint32[::1], uint64, uint64[::1], uint64[::1], int64[::1])")
def meeting(keys: U32, bits: np.uint64, once: U64, twice: U64, places: Ints) -> np.int64:
    """Find the `places` of keys whose first bits are those of another one, too, and give their number.

    bits         how many are looked at, between 6 and 32
    once, twice  a bit for each value that they have, zeros
    places       room for all
    """
    shift, found = _32 - bits, np.int64(0)
    for key in keys:
        value = np.uint64(key) >> shift
        bit = _1 << (value & _63)
        twice[value >> _6] |= once[value >> _6] & bit
        once[value >> _6] |= bit
    for place in range(len(keys)):
        value = np.uint64(keys[place]) >> shift
        places[found] = place
        found += np.int64((twice[value >> _6] >> (value & _63)) & _1)
    return found
