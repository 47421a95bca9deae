"""One contender, in the environment that it is installed in: `python contender.py NAME CORPUS`, then a call a line.

It stands alone, as nothing of the platform is installed beside a peer. All have the texts in memory before the clock
starts, one core, 256 permutations in 42 bands of 6 rows where they can be told so, shingles of 5 tokens, and a threshold of .7.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import tracemalloc
from collections.abc import Callable
from itertools import islice
from typing import Any

THRESHOLD, PERMUTATIONS, BANDS, ROWS, TOKENS = 0.7, 256, 42, 6, 5
BATCH = 10_000
TOKEN = re.compile(r"\w+")

LeftOut = list[int]  # numbers of the documents that are near-duplicates of a kept one


class Platform:
    """The pipeline's own: batches as it has them, and documents read again from Arrow."""

    def __init__(self, texts: list[str]) -> None:
        import pyarrow as pa

        from datasets.pipeline.memory import keep_freed_memory
        from datasets.pipeline.near.arithmetic import loops
        from datasets.pipeline.near.choices import NearDedup

        keep_freed_memory()  # as a run does
        self._table = pa.array(texts, pa.large_string())
        self._take = lambda rows: self._table.take(pa.array(rows))
        self._choices = NearDedup(THRESHOLD, PERMUTATIONS, TOKENS)
        self._arithmetic = loops()

    def __call__(self) -> LeftOut:
        left_out: LeftOut = self._index().clusters(self._take).member.tolist()
        return left_out

    def names(self) -> list[int]:
        """Each document's cluster, by the number of the document that it keeps."""
        clusters = self._index().clusters(self._take)
        names = dict(zip(clusters.member.tolist(), clusters.kept.tolist(), strict=True))
        return [names.get(number, number) for number in range(len(self._table))]

    def peak_bytes(self) -> int:
        """Of the index's arrays, and of all that is there besides while clusters are searched, at its highest."""
        index = self._index()
        tracemalloc.start()
        index.clusters(self._take)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return int(index.size_bytes + peak)

    def _index(self) -> Any:
        from datasets.pipeline.near.index import NearIndex

        index = NearIndex(self._choices, self._arithmetic, len(self._table))
        for begin in range(0, len(self._table), BATCH):
            index.add(self._table[begin : begin + BATCH])
        return index


def datasketch(texts: list[str]) -> Callable[[], LeftOut]:
    """Sketches in bulk with xxhash in place of SHA-1, each inserted after the index was asked for it."""
    import xxhash
    from datasketch import MinHash, MinHashLSH

    def run() -> LeftOut:
        index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, params=(BANDS, ROWS))
        sets = ([shingle.encode() for shingle in shingles(text)] for text in texts)
        sketches = MinHash.generator(sets, num_perm=PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest)
        left_out = []
        for number, sketch in enumerate(sketches):
            similar = index.query(sketch)
            if similar:
                left_out.append(number)
            else:
                index.insert(number, sketch, check_duplication=False)
        return left_out

    return run


def rensa(texts: list[str]) -> Callable[[], LeftOut]:
    """The deduplicator of its README, with all documents in one call."""
    from rensa import RMinHashDeduplicator

    def run() -> LeftOut:
        index = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PERMUTATIONS, use_lsh=True)
        kept = index.add_pairs((str(number), shingles(text)) for number, text in enumerate(texts))
        return [number for number, is_kept in enumerate(kept) if not is_kept]

    return run


def datatrove(texts: list[str]) -> Callable[[], LeftOut]:
    """The four stages of its example, one after another, without its logs."""
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from loguru import logger

    logger.remove()
    config = MinhashConfig(n_grams=TOKENS, num_buckets=BANDS, hashes_per_bucket=ROWS)

    def run() -> LeftOut:
        kept: set[int] = set()

        def gather(data: Any, rank: int = 0, world_size: int = 1) -> Any:
            for document in data:
                kept.add(int(document.id))
                yield document

        with tempfile.TemporaryDirectory() as folder:
            documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
            stages = [
                [documents, MinhashDedupSignature(output_folder=f"{folder}/signatures", config=config)],
                [
                    MinhashDedupBuckets(
                        input_folder=f"{folder}/signatures", output_folder=f"{folder}/buckets", config=config
                    )
                ],
                [
                    MinhashDedupCluster(
                        input_folder=f"{folder}/buckets", output_folder=f"{folder}/removed", config=config
                    )
                ],
                [documents, MinhashDedupFilter(input_folder=f"{folder}/removed"), gather],
            ]
            for number, stage in enumerate(stages):
                tasks = BANDS if number == 1 else 1
                for rank in range(tasks):
                    LocalPipelineExecutor(stage, tasks=tasks, logging_dir=f"{folder}/logs/{number}")._run_for_rank(rank)
        return sorted(set(range(len(texts))) - kept)

    return run


def data_juicer(texts: list[str]) -> Callable[[], LeftOut]:
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops.deduplicator.document_minhash_deduplicator import DocumentMinhashDeduplicator

    rows = NestedDataset.from_list([{"text": text, "number": number} for number, text in enumerate(texts)])

    def run() -> LeftOut:
        operator = DocumentMinhashDeduplicator(
            tokenization="punctuation",
            window_size=TOKENS,
            lowercase=True,
            num_permutations=PERMUTATIONS,
            jaccard_threshold=THRESHOLD,
            num_bands=BANDS,
            num_rows_per_band=ROWS,
        )
        hashed = rows.map(operator.compute_hash, load_from_cache_file=False)
        kept, _ = operator.process(hashed)
        return sorted(set(range(len(texts))) - set(kept["number"]))

    return run


def _processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def shingles(text: str) -> list[str]:
    tokens = TOKEN.findall(text.lower())
    return [" ".join(tokens[place : place + TOKENS]) for place in range(max(len(tokens) - TOKENS + 1, 1))]


CONTENDERS: dict[str, Callable[[list[str]], Callable[[], LeftOut]]] = {
    "platform": Platform,
    "datasketch": datasketch,
    "rensa": rensa,
    "datatrove": datatrove,
    "data_juicer": data_juicer,
}


class Contender:
    def __init__(self, name: str, corpus: str) -> None:
        self._prepare, self._corpus = CONTENDERS[name], corpus
        self._runs: dict[int, tuple[int, Callable[[], LeftOut]]] = {}

    def measure(self, documents: int) -> dict[str, float]:
        """Seconds of the processor for the first documents of the corpus, and how many were left out.

        All keep one core busy and wait for nothing: what others do on the machine meanwhile is not theirs.
        """
        size, run = self._prepared(documents)
        begun = _processor_s()
        left_out = run()
        return {"seconds": _processor_s() - begun, "bytes": size, "left_out": len(left_out)}

    def clusters(self, documents: int) -> list[int]:
        """Of the platform alone, as what follows."""
        return self._platform(documents).names()

    def bytes_a_document(self, documents: int) -> float:
        """What one more document costs: what is compared at a time costs the same for any number of them."""
        whole, half = (self._platform(count).peak_bytes() for count in (documents, documents // 2))
        return (whole - half) / (documents - documents // 2)

    def _platform(self, documents: int) -> Platform:
        run = self._prepared(documents)[1]
        assert isinstance(run, Platform)
        return run

    def _prepared(self, documents: int) -> tuple[int, Callable[[], LeftOut]]:
        if documents not in self._runs:
            with open(self._corpus) as file:
                texts = [json.loads(line)["text"] for line in islice(file, documents)]
            size = sum(len(text.encode()) for text in texts)
            while len(self._runs) > 1:  # a sample and its half
                self._runs.pop(next(iter(self._runs)))
            self._runs[documents] = (size, self._prepare(texts))
        return self._runs[documents]


def main(name: str, corpus: str) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a stray print is no result
    contender = Contender(name, corpus)
    for line in sys.stdin:
        method, keywords = json.loads(line)
        results.write(json.dumps(getattr(contender, method)(**keywords)) + "\n")
        results.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
