"""The search for near-duplicates among so many documents: an actor's side, without servers and without files."""

from __future__ import annotations

import os
import tracemalloc
from itertools import islice

import pyarrow as pa

from benchmarks.growth.documents import copies, mixed
from datasets.pipeline.memory import keep_freed_memory
from datasets.pipeline.near.arithmetic import loops
from datasets.pipeline.near.choices import NearDedup
from datasets.pipeline.near.index import Clusters, NearIndex

BATCH = 10_000


class Documents:
    """`kind` is mixed (a fifth resemble an earlier one) or copies (each is the same but for a word: one cluster)."""

    def __init__(self, kind: str, most: str) -> None:
        keep_freed_memory()
        made = mixed() if kind == "mixed" else copies()
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
