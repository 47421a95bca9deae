"""JSON Lines through the default recipe to a version: CPU time a byte, memory a record, the same bytes again."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import RESULTS, ROUNDS, Limit, Report, told
from benchmarks.parse import NO_SERVERS, SEED
from benchmarks.parse.uploads import write_jsonl

PEERS: dict[str, str] = {}
SIZE_BYTES = 200_000_000
FEW, MANY = 100_000, 500_000  # records of a few bytes, whose difference tells what one costs
MAX_CPU_S_PER_MB = 1 / 25
MAX_BYTES_A_RECORD = 350
MAX_PEAK_BYTES = 1 << 30


def run(peers: Sequence[str], size_bytes: int = SIZE_BYTES) -> Report:
    report = Report("pipeline")
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pipeline-", dir=RESULTS))
    try:
        broken = write_jsonl(folder / "rows.jsonl", size_bytes, SEED).broken
        _measure(report, folder, (folder / "rows.jsonl").stat().st_size / 1e6, len(broken))
        report.limits["bytes_a_record"] = Limit(_bytes_a_record(folder), MAX_BYTES_A_RECORD)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _measure(report: Report, folder: Path, megabytes: float, broken: int) -> None:
    runs: list[dict[str, Any]] = []
    with _pipeline(folder) as pipeline:
        report.commands["platform"] = pipeline.command.split(str(folder))[0] + "..."
        for number in range(ROUNDS):
            runs.append(pipeline.call("measure", timeout_s=600, source=str(folder / "rows.jsonl")))
            told(round=number + 1, mb_per_cpu_second=megabytes / runs[-1]["cpu_s"])
    report.checks = {
        "every run gives the same bytes": len({one["digest"] for one in runs}) == 1,
        "as many lines were rejected as are broken": all(one["rejected"] == broken for one in runs),
    }
    seconds = median(one["cpu_s"] for one in runs)
    report.ours = {
        "mb_per_cpu_second": megabytes / seconds,
        "records_per_cpu_second": (runs[0]["rows_kept"] + broken) / seconds,
        **{f"{name}_share": time / sum(runs[-1]["steps"].values()) for name, time in runs[-1]["steps"].items()},
    }
    report.limits["cpu_s_per_mb"] = Limit(seconds / megabytes, MAX_CPU_S_PER_MB)
    report.limits["peak_mib"] = Limit(max(one["anonymous_bytes"] for one in runs) / 2**20, MAX_PEAK_BYTES / 2**20)


def _bytes_a_record(folder: Path) -> float:
    """What the peak grows by with each record: fresh processes, since a heap does not shrink."""
    peaks = []
    for records in (FEW, MANY):
        source = folder / f"{records}.jsonl"
        with source.open("w") as file:
            file.writelines(json.dumps({"text": f"record {number}"}) + "\n" for number in range(records))
        with _pipeline(folder) as pipeline:
            peaks.append(pipeline.call("measure", timeout_s=600, source=str(source))["anonymous_bytes"])
    return (peaks[1] - peaks[0]) / (MANY - FEW)


def _pipeline(folder: Path) -> Actor:
    home = Path(tempfile.mkdtemp(prefix="runs-", dir=folder))
    return Actor("benchmarks.pipeline.contender:Pipeline", str(home), env=NO_SERVERS)
