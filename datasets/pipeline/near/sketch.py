"""Sketches of documents: MinHash signatures, computed slot by slot and at once folded into band keys.

A signature is made as in Dahlgaard, Knudsen, Thorup, Fast Similarity Sketching (FOCS 2017): in round after round each shingle
is thrown at one slot of the signature with a random rank, a slot keeps the least (round, rank) that it was hit by, and so two
documents agree in a slot with a probability of their Jaccard similarity. Here the rounds end when a slot has been hit four
times on average, or after 32; a slot that is empty then takes the value of another one, each slot asking the others in an
order of its own (Shrivastava, Optimal Densification, ICML 2017). Four hits leave e^-4 of the slots empty.

Of a slot one bit is kept as well: two documents agree in (1 + J) / 2 of their bits (Li, Koenig, b-Bit Minwise Hashing, WWW 2010).

It costs some 1,000 throws a document where each of 252 permutations of 280 shingles would cost 70,000.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.shingles import U64, Ints, Shingles, mixed, odd_factors

U32 = npt.NDArray[np.uint32]

HITS_A_SLOT = 4
ROUNDS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32])
RANK_BITS = 27  # a round takes the five above
EMPTY = np.uint32(0xFFFFFFFF)
THROWS_AT_A_TIME = 32 * 1024


class Sketcher:
    """Makes the sketches of documents, the same ones whatever other documents they come with."""

    def __init__(self, choices: NearDedup) -> None:
        self.bands, self.rows = choices.bands, choices.rows
        self._slots = self.bands * self.rows
        self.turns = odd_factors(int(ROUNDS[-1]), seed=2)
        self.folds = odd_factors(self.rows, seed=3)
        orders = mixed(np.arange(self._slots**2, dtype=np.uint64)).reshape(self._slots, -1)
        self.others = np.argsort(orders, axis=0)  # [attempt, slot]

    def sketches(self, shingles: Shingles) -> tuple[U32, U64]:
        """Keys, (documents, bands), and bits, (documents, words); those of a document without shingles mean nothing."""
        signatures = self._filled(self._thrown(shingles))
        return self._folded(signatures), _bits(signatures)

    def rounds(self, counts: Ints) -> Ints:
        """Of documents with so many shingles."""
        wanted = np.searchsorted(ROUNDS, HITS_A_SLOT * self._slots / np.maximum(counts, 1))
        return ROUNDS[np.minimum(wanted, len(ROUNDS) - 1)]

    def _thrown(self, shingles: Shingles) -> U32:
        counts = shingles.counts
        slots = np.full(len(counts) * self._slots, EMPTY, np.uint32)
        all_rounds = self.rounds(counts)
        documents = np.repeat(np.arange(len(counts)), counts)
        for rounds in np.unique(all_rounds[counts > 0]):
            mine = (all_rounds == rounds)[documents]
            self._throw(slots, shingles.hashes[mine], documents[mine] * self._slots, int(rounds))
        signatures = slots.reshape(-1, self._slots)
        signatures[counts == 0] = 0
        return signatures

    def _throw(self, slots: U32, hashes: U64, places: Ints, rounds: int) -> None:
        turns = self.turns[:rounds, None]
        numbers = np.arange(rounds, dtype=np.uint32)[:, None] << np.uint32(RANK_BITS)
        size = max(THROWS_AT_A_TIME // rounds, 1)
        for first in range(0, len(hashes), size):
            halves = (hashes[first : first + size] * turns).view(np.uint32).reshape(rounds, -1, 2)
            ranks = halves[:, :, 0] >> np.uint32(32 - RANK_BITS)
            ranks |= numbers
            hit = halves[:, :, 1] >> np.uint32(16)
            hit *= np.uint32(self._slots)
            hit >>= np.uint32(16)
            np.minimum.at(slots, (hit + places[first : first + size]).ravel(), ranks.ravel())

    def _filled(self, slots: U32) -> U32:
        documents, empty = np.nonzero(slots == EMPTY)
        filled = slots.copy()
        for others in self.others:
            if not len(documents):
                break
            values = slots[documents, others[empty]]
            filled[documents, empty] = values
            still = values == EMPTY
            documents, empty = documents[still], empty[still]
        return filled

    def _folded(self, slots: U32) -> U32:
        banded = slots.reshape(len(slots), self.bands, self.rows)
        keys = np.zeros(banded.shape[:2], np.uint64)
        for row, factor in enumerate(self.folds):
            keys += banded[:, :, row] * factor
        return (mixed(keys) >> np.uint64(32)).astype(np.uint32)


def _bits(signatures: U32) -> U64:
    """The lowest bit of each slot."""
    packed = np.packbits((signatures & np.uint32(1)).astype(np.uint8), axis=1)
    words = np.zeros((len(packed), -(-packed.shape[1] // 8) * 8), np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view(np.uint64)
