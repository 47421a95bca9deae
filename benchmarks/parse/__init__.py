"""200 MB of JSON Lines, of which 2 % are broken, and the same as CSV and as Parquet: parsed into Arrow tables."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from benchmarks.actor import Actor
from benchmarks.harness import RESULTS, Ratio, Report, alternated, told
from benchmarks.parse.uploads import Written, write_csv, write_jsonl, write_parquet

OURS = "platform"
PEERS = {
    "loop": "a loop of json.loads, csv.reader, and pyarrow's batches, that keeps what it can, and the numbers of the other lines",
    "pandas": "read_json(lines=True) of the good lines alone, read_csv(on_bad_lines='skip'), and read_parquet",
}
KINDS = ("jsonl", "csv", "parquet")
TARGETS = {("jsonl", "loop"): 3.0, ("csv", "loop"): 1.0}
SIZE_BYTES = 200_000_000
SEED = 17
NO_SERVERS = {"DATABASE_URL": "postgresql://nobody@%2Fnowhere/none", "REDIS_URL": "unix:///nowhere"}


def run(peers: Sequence[str], size_bytes: int = SIZE_BYTES) -> Report:
    report = Report("parse")
    RESULTS.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="parse-", dir=RESULTS))
    try:
        written = {
            "jsonl": write_jsonl(folder / "rows.jsonl", size_bytes, SEED),
            "csv": write_csv(folder / "rows.csv", size_bytes, SEED),
            "parquet": write_parquet(folder / "rows.parquet", size_bytes, SEED),
        }
        with ExitStack() as stack:
            actors = {name: stack.enter_context(_parser(name, folder)) for name in (OURS, *peers)}
            _check(report, actors, written)
            took: dict[tuple[str, str], list[float]] = {}
            for number, (kind, name) in alternated([(kind, name) for kind in KINDS for name in actors]):
                seconds = actors[name].call("measure", timeout_s=600, kind=kind)
                took.setdefault((kind, name), []).append(seconds)
                told(
                    round=number + 1,
                    kind=kind,
                    contender=name,
                    mb_per_cpu_second=written[kind].size_bytes / 1e6 / seconds,
                )
        for name, actor in actors.items():
            report.commands[name] = f"{actor.command.split(str(folder))[0]}..."
            report.ours[f"{name}_peak_mib"] = actor.memory.peak_bytes / 2**20
            for kind in KINDS:
                report.ours[f"{name}_{kind}_mb_per_cpu_second"] = (
                    written[kind].size_bytes / 1e6 / median(took[kind, name])
                )
        for kind in KINDS:
            for peer in peers:
                ratios = [theirs / ours for theirs, ours in zip(took[kind, peer], took[kind, OURS], strict=True)]
                report.ratios[f"{peer} ({kind})"] = Ratio.of(ratios, TARGETS.get((kind, peer)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _parser(name: str, folder: Path) -> Actor:
    files = [str(folder / f"rows.{kind}") for kind in KINDS]
    return Actor("benchmarks.parse.contender:Parser", name, *files, env=NO_SERVERS)


def _check(report: Report, actors: dict[str, Actor], written: dict[str, Written]) -> None:
    """What each makes of the files, before any of them is timed."""
    for kind, truth in written.items():
        answers = {name: actor.call("answer", timeout_s=600, kind=kind) for name, actor in actors.items()}
        report.checks |= {
            f"{kind}: every good line is kept, and no other": answers[OURS]["digest"] == truth.digest,
            f"{kind}: every broken line is reported with its number": answers[OURS]["refused"] == truth.broken,
        }
        report.ours[f"{kind}_broken_lines"] = len(truth.broken)
        for name, answer in answers.items():
            found = len(set(answer["refused"]) & set(truth.broken))
            report.ours[f"{name}_{kind}_broken_lines_reported"] = found
