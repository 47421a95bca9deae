"""The terms of the lexicon, found by a compiled loop over words: what its pattern finds, in a fifth of the time.

A word is a maximal run of ASCII letters, digits, and underscores, as the pattern's borders have it. A term begins with a word, and
only where the text has that one are terms compared; of those that begin with it the longest one that stands there wins.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from datasets.pipeline.bias.lexicon import Lexicon
from datasets.pipeline.compiled import compiled, part

_SLOTS = 1 << 12  # more than ten for each word, so that few are asked for
_FACTOR, _MASK = 16_777_619, (1 << 32) - 1  # FNV-1a of 32 bits, in numbers of 64
_SPACE, _HYPHEN = b" -"
_LOWER = np.zeros(256, np.uint8)  # of what words are made of; 0 for all else
for _byte in b"abcdefghijklmnopqrstuvwxyz0123456789_":
    _LOWER[_byte] = _LOWER[ord(chr(_byte).upper())] = _byte


class Terms:
    """The lexicon as the loop needs it."""

    def __init__(self, lexicon: Lexicon) -> None:
        terms = sorted(lexicon.codes, key=lambda term: (_hash(term.partition(" ")[0].encode()), -len(term), term))
        written = [term.encode() for term in terms]
        self._letters = np.frombuffer(b"".join(written), np.uint8).copy()
        self._bounds = np.cumsum([0, *map(len, written)])
        self._meanings = np.array([(*lexicon.codes[term], -1, -1)[:2] for term in terms], np.int64)
        self._hashes = np.full(_SLOTS, -1, np.int64)
        self._firsts, self._stops = np.zeros(_SLOTS, np.int64), np.zeros(_SLOTS, np.int64)
        for number, term in enumerate(terms):
            key = _hash(term.partition(" ")[0].encode())
            slot = _slot(self._hashes, key)
            if self._hashes[slot] < 0:
                self._hashes[slot], self._firsts[slot] = key, number
            self._stops[slot] = number + 1

    def words(self, texts: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """What of the lexicon occurs where: places in `texts`, and codes."""
        if texts.null_count:
            texts = texts.fill_null("")
        kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
        _, offsets, data = texts.buffers()
        bounds = np.frombuffer(offsets, kind)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
        size = int(bounds[-1] - bounds[0]) if len(texts) else 0
        places, found = np.empty(size // 2 + len(texts), np.int64), np.empty(size // 2 + len(texts), np.int64)
        count = _find(
            np.frombuffer(data if size else b"\0", np.uint8), bounds, self._letters, self._bounds,
            self._hashes, self._firsts, self._stops, places, found,
        )  # fmt: skip
        places, meanings = np.repeat(places[:count], 2), self._meanings[found[:count]].ravel()
        return places[meanings >= 0], meanings[meanings >= 0]


@part
def _slot(hashes: Any, key: int) -> int:
    """Where this hash is, or would be: there are far more slots than hashes."""
    slot = key & (_SLOTS - 1)
    while hashes[slot] >= 0 and hashes[slot] != key:
        slot = (slot + 1) & (_SLOTS - 1)
    return slot


def _hash(word: bytes) -> int:
    found = 0
    for byte in word:
        found = ((found ^ byte) * _FACTOR) & _MASK
    return found


@part
def _stands_there(data: Any, place: int, end: int, letters: Any, begin: int, stop: int) -> bool:
    size = stop - begin
    if place + size > end or (place + size < end and _LOWER[data[place + size]] != 0):
        return False
    for ahead in range(size):
        byte, letter = data[place + ahead], letters[begin + ahead]
        if letter == _SPACE:
            if byte not in (_SPACE, _HYPHEN):
                return False
        elif _LOWER[byte] != letter:
            return False
    return True


@compiled(
    "int64(Array(uint8, 1, 'C', True), int64[::1], uint8[::1], int64[::1], "
    "int64[::1], int64[::1], int64[::1], int64[::1], int64[::1])"
)
def _find(
    data: Any, texts: Any, letters: Any, bounds: Any, hashes: Any, firsts: Any, stops: Any, places: Any, found: Any
) -> int:  # fmt: skip
    """How many terms there are; the text and the number of each. Every second byte of a text is the first one of a word at most."""
    count = 0
    for text in range(len(texts) - 1):
        place, end = texts[text], texts[text + 1]
        while place < end:
            letter = _LOWER[data[place]]
            if letter == 0:
                place += 1
                continue
            begin, key = place, 0
            while letter != 0:
                key = ((key ^ letter) * _FACTOR) & _MASK
                place += 1
                letter = _LOWER[data[place]] if place < end else 0
            slot = _slot(hashes, key)
            if hashes[slot] < 0:
                continue
            for term in range(firsts[slot], stops[slot]):
                if _stands_there(data, begin, end, letters, bounds[term], bounds[term + 1]):
                    places[count] = text
                    found[count] = term
                    count += 1
                    place = begin + bounds[term + 1] - bounds[term]
                    break
    return count
