"""A peer's full recipe, in the environment that it is installed in: `python peers.py NAME FILE`, then a call a line.

It stands alone, as nothing of the platform is installed beside a peer. Each is given as much of the default recipe as it has, one
core, and JSON Lines without broken lines, whose rows are one text: cleaned, near-duplicates left out (5 tokens, 42 bands of 6 rows),
personal data masked, and written.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

THRESHOLD, PERMUTATIONS, BANDS, ROWS, TOKENS = 0.7, 256, 42, 6, 5
STDOUT, STDERR = 1, 2  # a peer may put other objects in the place of those of sys
Recipe = Callable[[Path, Path], None]
"""From a folder that has one file of JSON Lines to an empty one."""


def datatrove() -> Recipe:
    """Its formatters, the four stages of its MinHash example, and Parquet."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.formatters import FTFYFormatter, PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter, ParquetWriter
    from loguru import logger

    logger.remove()
    config = MinhashConfig(n_grams=TOKENS, num_buckets=BANDS, hashes_per_bucket=ROWS)

    def run(source: Path, made: Path) -> None:
        def read() -> JsonlReader:
            return JsonlReader(f"{made}/clean", compression=None)

        writer = JsonlWriter(f"{made}/clean", output_filename="${rank}.jsonl", compression=None)
        stages = [
            [JsonlReader(str(source), compression=None), FTFYFormatter(), writer],
            [read(), MinhashDedupSignature(output_folder=f"{made}/signatures", config=config)],
            [MinhashDedupBuckets(f"{made}/signatures", f"{made}/buckets", config=config)],
            [MinhashDedupCluster(f"{made}/buckets", f"{made}/removed", config=config)],
            [read(), MinhashDedupFilter(f"{made}/removed"), PIIFormatter(), ParquetWriter(f"{made}/version")],
        ]
        for number, stage in enumerate(stages):
            tasks = BANDS if number == 2 else 1
            for rank in range(tasks):
                LocalPipelineExecutor(stage, tasks=tasks, logging_dir=f"{made}/logs/{number}")._run_for_rank(rank)

    return run


def data_juicer() -> Recipe:
    """A recipe of its operators, carried out by its default executor."""
    from data_juicer.config import init_configs
    from data_juicer.core import DefaultExecutor

    process = [
        {"fix_unicode_mapper": {}},
        {"whitespace_normalization_mapper": {}},
        {"text_length_filter": {"min_len": 1}},
        {"document_deduplicator": {}},
        {
            "document_minhash_deduplicator": {
                "tokenization": "punctuation",
                "window_size": TOKENS,
                "num_permutations": PERMUTATIONS,
                "jaccard_threshold": THRESHOLD,
                "num_bands": BANDS,
                "num_rows_per_band": ROWS,
            }
        },
        {"clean_email_mapper": {}},
        {"clean_ip_mapper": {}},
    ]

    def run(source: Path, made: Path) -> None:
        recipe = made / "recipe.yaml"  # which JSON is, too
        recipe.write_text(
            json.dumps(
                {
                    "project_name": "recipe",
                    "dataset_path": str(next(source.iterdir())),
                    "export_path": str(made / "version.jsonl"),
                    "np": 1,
                    "use_cache": False,
                    "open_tracer": False,
                    "process": process,
                }
            )
        )
        DefaultExecutor(init_configs(["--config", str(recipe)])).run()

    return run


RECIPES: dict[str, Callable[[], Recipe]] = {"datatrove": datatrove, "data_juicer": data_juicer}


class Peer:
    def __init__(self, name: str, file: str) -> None:
        self._run, self._file = RECIPES[name](), Path(file)

    def measure(self, records: int) -> dict[str, float]:
        """Seconds of the processor, its children's included, for the first records of the file, and their size."""
        folder = Path(tempfile.mkdtemp(prefix="peer-", dir=self._file.parent))
        try:
            source, made = folder / "source", folder / "made"
            source.mkdir()
            made.mkdir()
            with self._file.open("rb") as file:
                lines = list(islice(file, records))
            texts = [row["prompt"] + row["completion"] for row in map(json.loads, lines)]
            (source / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
            with _quietly(folder / "said"):
                begun = _processor_s()
                self._run(source, made)
                seconds = _processor_s() - begun
            return {"seconds": seconds, "bytes": sum(map(len, lines)), "records": len(lines)}
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _quietly(file: Path) -> Iterator[None]:
    """What is said on standard error goes to `file`, and is shown where the block fails."""
    standard = os.dup(STDERR)
    with file.open("wb") as said:
        os.dup2(said.fileno(), STDERR)
    try:
        yield
    except BaseException:
        os.write(standard, file.read_bytes()[-4000:])
        raise
    finally:
        os.dup2(standard, STDERR)
        os.close(standard)


def _processor_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(name: str, file: str) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    results = os.fdopen(os.dup(STDOUT), "w")
    os.dup2(STDERR, STDOUT)  # a stray print is no result
    peer = Peer(name, file)
    for line in sys.stdin:
        method, keywords = json.loads(line)
        results.write(json.dumps(getattr(peer, method)(**keywords)) + "\n")
        results.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
