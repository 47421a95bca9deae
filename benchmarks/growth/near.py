"""The search for near-duplicates among so many documents: an actor's side, without servers and without files."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator
from itertools import islice

import pyarrow as pa

from datasets.pipeline.memory import keep_freed_memory
from datasets.pipeline.near.arithmetic import loops
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.index import Clusters, NearIndex

SEED = 23
WORDS = [f"w{number}" for number in range(50_000)]
WORDS_A_DOCUMENT = (20, 60)
SIMILAR_SHARE = 0.2  # of documents that are an earlier one with another word in it
BATCH = 10_000


class Documents:
    """`kind` is mixed (a fifth resemble an earlier one) or copies (each is the same but for a word: one cluster)."""

    def __init__(self, kind: str, most: str) -> None:
        keep_freed_memory()
        made = _mixed() if kind == "mixed" else _copies()
        self._texts = pa.array(islice(made, int(most)), pa.large_string())
        self._arithmetic = loops()

    def search(self, documents: int) -> dict[str, float]:
        """Seconds of the processor, exact comparisons, and how many documents are left out."""
        begun = os.times()
        clusters = self._clusters(documents)
        ended = os.times()
        seconds = ended.user + ended.system - begun.user - begun.system
        return {"seconds": seconds, "compared": clusters.verified, "left_out": len(clusters.member)}

    def bytes_a_document(self, documents: int) -> float:
        """Of the index, and of all that is there besides while clusters are searched, at its highest."""
        tracemalloc.start()
        self._clusters(documents)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / documents

    def _clusters(self, documents: int) -> Clusters:
        texts = self._texts[:documents]
        index = NearIndex(NearDedup(), self._arithmetic, documents)
        for begin in range(0, documents, BATCH):
            index.add(texts[begin : begin + BATCH])
        return index.clusters(lambda rows: texts.take(pa.array(rows)))


def _mixed() -> Iterator[str]:
    chance = random.Random(SEED)
    recent: list[list[str]] = [["first"]]
    while True:
        if chance.random() < SIMILAR_SHARE:
            words = [*chance.choice(recent)]
            words[chance.randrange(len(words))] = chance.choice(WORDS)
        else:
            words = chance.choices(WORDS, k=chance.randint(*WORDS_A_DOCUMENT))
            recent = [*recent[-99:], words]
        yield " ".join(words)


def _copies() -> Iterator[str]:
    """Any two have a similarity of .69 to .84."""
    words, number = WORDS[:60], 0
    while True:
        place = number % len(words)
        yield " ".join([*words[:place], f"x{number}", *words[place + 1 :]])
        number += 1
