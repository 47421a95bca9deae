"""Whole runs of the pipeline, from an upload to what is stored, over more and more records, a fifth of which resemble an earlier one."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.actor import Actor
from benchmarks.growth.documents import mixed
from benchmarks.harness import RESULTS, alternated, told
from benchmarks.parse import NO_SERVERS

CALL_S = 600.0

Runs = dict[int, list[dict[str, Any]]]  # by the number of records, round after round


def whole_runs(records: Sequence[int], rounds: int) -> tuple[Runs, str]:
    """What each run took, and by what command. Each size has a process of its own, for a heap does not shrink."""
    found: Runs = defaultdict(list)
    with _uploads(records) as (folder, uploads), ExitStack() as stack:
        pipelines = {count: stack.enter_context(_pipeline(folder)) for count in records}
        for count, pipeline in pipelines.items():
            pipeline.call(
                "measure", timeout_s=CALL_S, source=str(uploads[count])
            )  # loops are compiled for what is large
        for number, count in alternated(records, rounds):
            found[count].append(pipelines[count].call("measure", timeout_s=CALL_S, source=str(uploads[count])))
            told(round=number + 1, records=count, cpu_s=found[count][-1]["cpu_s"])
        command = pipelines[records[0]].command.split(str(folder))[0] + "..."
    return found, command


def bytes_a_record(found: Runs) -> float:
    """Of memory, for each record more between the two largest sizes."""
    few, many = sorted(found)[-2:]
    least, most = (max(one["anonymous_bytes"] for one in found[count]) for count in (few, many))
    return float(most - least) / (many - few)


@contextmanager
def _uploads(records: Sequence[int]) -> Iterator[tuple[Path, dict[int, Path]]]:
    """One file for each size, each the beginning of the next."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="growth-", dir=RESULTS) as name:
        folder = Path(name)
        uploads = {count: folder / f"{count}.jsonl" for count in sorted(records)}
        written, documents = 0, mixed()
        for count, path in uploads.items():
            if written:
                shutil.copyfile(uploads[written], path)
            with path.open("a") as file:
                file.writelines(json.dumps({"text": text}) + "\n" for text in islice(documents, count - written))
            written = count
        yield folder, uploads


def _pipeline(folder: Path) -> Actor:
    home = tempfile.mkdtemp(prefix="runs-", dir=folder)
    return Actor("benchmarks.pipeline.contender:Pipeline", home, env=NO_SERVERS)
