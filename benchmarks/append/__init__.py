"""One row added to each hundred of a dataset, against all of them from scratch: CPU time, the same rows, memory."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import RESULTS, Limit, Ratio, Report, alternated, told
from benchmarks.parse import NO_SERVERS, SEED
from benchmarks.parse.uploads import functions

PEERS: dict[str, str] = {}
ROWS = 1_000_000
ADDED_SHARE = 0.01
REPEATED, SIMILAR = 0.1, 0.1  # of the rows that are added: what is there already, and what resembles it
TARGET = 1 / 0.03
MAX_PEAK_BYTES = 1 << 30


def run(peers: Sequence[str], rows: int = ROWS) -> Report:
    report = Report("append")
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="append-", dir=RESULTS))
    try:
        _write(folder, rows)
        with Actor("benchmarks.append.contender:Dataset", str(folder), env=NO_SERVERS) as dataset:
            _measure(report, dataset)
            report.commands["platform"] = dataset.command.split(str(folder))[0] + "..."
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.ours["rows"] = rows
    return report


def _measure(report: Report, dataset: Actor) -> None:
    dataset.call("begin", timeout_s=900)
    runs: dict[str, list[dict[str, Any]]] = {"append": [], "scratch": []}
    for number, name in alternated(["append", "scratch"], report.rounds):
        runs[name].append(dataset.call(name, timeout_s=900))
        told(round=number + 1, **{f"{name}_cpu_s": runs[name][-1]["cpu_s"]})
    report.checks = {
        "each append gives the same bytes": len({one["digest"] for one in runs["append"]}) == 1,
        "its rows, and their splits, are those from scratch": all(
            one["rows_digest"] == runs["scratch"][0]["rows_digest"] for one in runs["append"] + runs["scratch"]
        ),
        "all that was repeated or similar was left out": all(
            one["left_out"] == one["expected"] for one in runs["append"]
        ),
    }
    pairs = list(zip(runs["scratch"], runs["append"], strict=True))
    report.ratios["itself from scratch"] = Ratio.of([full["cpu_s"] / ours["cpu_s"] for full, ours in pairs], TARGET)
    report.ours = {
        "append_cpu_s": min(one["cpu_s"] for one in runs["append"]),
        "scratch_cpu_s": min(one["cpu_s"] for one in runs["scratch"]),
        "share_of_the_full_time": sum(one["cpu_s"] for one in runs["append"])
        / sum(one["cpu_s"] for one in runs["scratch"]),
        "index_bytes_a_row": runs["append"][0]["index_bytes_a_row"],
        "steps": " ".join(f"{name} {time:.3f}" for name, time in runs["append"][-1]["steps"].items()),
    }
    report.limits["append_peak_mib"] = Limit(
        max(one["anonymous_bytes"] for one in runs["append"]) / 2**20, MAX_PEAK_BYTES / 2**20
    )


def _write(folder: Path, rows: int) -> None:
    """old.jsonl, new.jsonl, and both.jsonl; how many of the new rows are to be left out is in expected.json."""
    chance = random.Random(SEED)
    made = functions(SEED)
    old = list(islice(made, rows))
    new, left_out = [], 0
    for row in islice(made, round(rows * ADDED_SHARE)):
        point = chance.random()
        if point < REPEATED:
            row = chance.choice(old)
        elif point < REPEATED + SIMILAR:
            row = _shortened(chance.choice(old))
        left_out += point < REPEATED + SIMILAR
        new.append(row)
    for name, written in (("old", old), ("new", new), ("both", [*old, *new])):
        with (folder / f"{name}.jsonl").open("w") as file:
            file.writelines(_lines(written))
    (folder / "expected.json").write_text(json.dumps(left_out))


def _shortened(row: dict[str, str]) -> dict[str, str]:
    """Without its last line: much like the row, and not the longer of the two."""
    return {**row, "completion": "".join(row["completion"].splitlines(keepends=True)[:-1])}


def _lines(rows: Sequence[dict[str, str]]) -> Iterator[str]:
    return (json.dumps(row) + "\n" for row in rows)
