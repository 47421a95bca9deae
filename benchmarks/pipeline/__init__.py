"""JSON Lines through the default recipe to a version, beside peers' recipes: CPU time a byte, memory, the same bytes again."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.actor import Actor, ActorFailed
from benchmarks.growth import slope
from benchmarks.harness import RESULTS, Limit, Ratio, Report, alternated, told
from benchmarks.parse import NO_SERVERS, SEED
from benchmarks.parse.uploads import write_jsonl
from benchmarks.peers import python, reason_missing
from platform_site.engines.place import ROOT

OURS = "platform"
PEERS = {
    "datatrove": "its formatters, the four stages of its MinHash example, and Parquet",
    "data_juicer": "a recipe of its operators, by its default executor",
}
TARGET = 20.0  # times the best of them
FIRST_TRY, ROUND_S, CALL_S = 500, 6.0, 600
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
SIZE_BYTES = 200_000_000
RECORDS = (10_000, 100_000, 1_000_000)  # of a few bytes
MAX_SLOPE = 1.1  # of the logarithms of their numbers and of the processor time
MAX_CPU_S_PER_MB = 1 / 25
MAX_BYTES_A_RECORD = 350
MAX_PEAK_BYTES = 1 << 30


def run(peers: Sequence[str], size_bytes: int = SIZE_BYTES) -> Report:
    report = Report("pipeline")
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="pipeline-", dir=RESULTS))
    try:
        broken = write_jsonl(folder / "rows.jsonl", size_bytes, SEED).broken
        _measure(report, folder, (folder / "rows.jsonl").stat().st_size / 1e6, len(broken), peers)
        _growth(report, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _measure(report: Report, folder: Path, megabytes: float, broken: int, peers: Sequence[str]) -> None:
    runs: list[dict[str, Any]] = []
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        pipeline = stack.enter_context(_pipeline(folder))
        report.commands[OURS] = pipeline.command.split(str(folder))[0] + "..."
        others = _peers(report, stack, folder / "rows.good", peers)
        for number, name in alternated([OURS, *others]):
            if name == OURS:
                runs.append(pipeline.call("measure", timeout_s=CALL_S, source=str(folder / "rows.jsonl")))
                rate = megabytes / runs[-1]["cpu_s"]
            else:
                rate = _rate(*others[name])
            rates.setdefault(name, []).append(rate)
            told(round=number + 1, contender=name, mb_per_cpu_second=rate)
        for name, (peer, records) in others.items():
            report.ours |= {f"{name}_records_a_round": records, f"{name}_peak_mib": peer.memory.peak_bytes / 2**20}
    report.checks = {
        "every run gives the same bytes": len({one["digest"] for one in runs}) == 1,
        "as many lines were rejected as are broken": all(one["rejected"] == broken for one in runs),
    }
    seconds = median(one["cpu_s"] for one in runs)
    for name, each in rates.items():
        if name != OURS:
            report.ours[f"{name}_mb_per_cpu_second"] = median(each)
            report.ratios[name] = Ratio.of(
                [ours / theirs for ours, theirs in zip(rates[OURS], each, strict=True)], TARGET
            )
    report.ours |= {
        "mb_per_cpu_second": megabytes / seconds,
        "records_per_cpu_second": (runs[0]["rows_kept"] + broken) / seconds,
        **{f"{name}_share": time / sum(runs[-1]["steps"].values()) for name, time in runs[-1]["steps"].items()},
    }
    report.limits["cpu_s_per_mb"] = Limit(seconds / megabytes, MAX_CPU_S_PER_MB)
    report.limits["peak_mib"] = Limit(max(one["anonymous_bytes"] for one in runs) / 2**20, MAX_PEAK_BYTES / 2**20)


def _peers(report: Report, stack: ExitStack, file: Path, names: Sequence[str]) -> dict[str, tuple[Actor, int]]:
    """Those that work, each with as many records as keep it busy for a round beyond its start."""
    found = {}
    for name in names:
        if reason := reason_missing(name):
            report.failed_peers[name] = reason
            continue
        env = ONE_THREAD | {"PYTHONPATH": "", "DJANGO_SETTINGS_MODULE": ""}
        script = Path(__file__).parent / "peers.py"
        try:
            peer = stack.enter_context(Actor.script(python(name), script, name, str(file), env=env))
            start_s = peer.call("measure", timeout_s=CALL_S, records=FIRST_TRY // 10)["seconds"]  # and a warm-up
            start_s = min(start_s, peer.call("measure", timeout_s=CALL_S, records=FIRST_TRY // 10)["seconds"])
            records, seconds = FIRST_TRY, 0.0
            while seconds < ROUND_S + start_s:
                seconds = peer.call("measure", timeout_s=CALL_S, records=records)["seconds"]
                records = int(records * min(max((ROUND_S + 2 * start_s) / seconds, 1.3), 8.0))
        except ActorFailed as error:
            report.failed_peers[name] = str(error)
            continue
        report.commands[name] = peer.command.replace(str(ROOT), ".")
        found[name] = (peer, records)
    return found


def _rate(peer: Actor, records: int) -> float:
    """Megabytes a second of processor time, of the second half of the records: a peer that is slow to start is not held to that."""
    whole, half = (peer.call("measure", timeout_s=CALL_S, records=count) for count in (records, records // 2))
    return float((whole["bytes"] - half["bytes"]) / max(whole["seconds"] - half["seconds"], 1e-3) / 1e6)


def _growth(report: Report, folder: Path) -> None:
    """What a record costs, and how its costs grow: fresh processes, since a heap does not shrink."""
    cpu_s, peaks = {}, {}
    for records in RECORDS:
        source = folder / f"{records}.jsonl"
        with source.open("w") as file:
            file.writelines(_record(number) for number in range(records))
        with _pipeline(folder) as pipeline:
            pipeline.call("measure", timeout_s=CALL_S, source=str(folder / f"{RECORDS[0]}.jsonl"))  # a warm-up
            figures = pipeline.call("measure", timeout_s=CALL_S, source=str(source))
        cpu_s[records], peaks[records] = figures["cpu_s"], figures["anonymous_bytes"]
        told(records=records, cpu_s=cpu_s[records], peak_mib=peaks[records] / 2**20)
    few, many = RECORDS[-2:]
    report.limits["bytes_a_record"] = Limit((peaks[many] - peaks[few]) / (many - few), MAX_BYTES_A_RECORD)
    report.limits["cpu_slope_of_records"] = Limit(slope(cpu_s), MAX_SLOPE)


def _record(number: int) -> str:
    """Of about 90 bytes, unlike all others."""
    words = " ".join(f"w{number * 7919 % 1_000_003 + place}" for place in range(8))
    return json.dumps({"text": f"record {number}: {words}"}) + "\n"


def _pipeline(folder: Path) -> Actor:
    home = Path(tempfile.mkdtemp(prefix="runs-", dir=folder))
    return Actor("benchmarks.pipeline.contender:Pipeline", str(home), env=NO_SERVERS)
