"""Secrets and personal data found and masked in code and prose: megabytes a second, and how much of it was found."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.actor import Actor, ActorFailed
from benchmarks.harness import RESULTS, Ratio, Report, alternated, told
from benchmarks.peers import REQUIREMENTS, python, reason_missing
from benchmarks.pii import corpus
from benchmarks.pii.contenders import Span, same
from platform_site.engines.place import ROOT

OURS = "platform"
PEERS = {
    "re": "eight patterns of Python's re, one after the other over each text",
    "presidio": "presidio's pattern recognizers, with a blank spaCy pipeline",
    "datatrove": "datatrove's PIIFormatter",
    "scrubadub": "scrubadub's default detectors",
}
CLASSES = {
    OURS: "Ours",
    "re": "PatternsInTurn",
    "presidio": "Presidio",
    "datatrove": "Datatrove",
    "scrubadub": "Scrubadub",
}
TARGETS = {"presidio": 200.0, "re": 25.0}
SEED = 17
SAMPLE_BYTES = 24_000_000
TRUTH_ROWS = 1_500
ROUND_S = 5.0
ONE_THREAD = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
TOLD_TOGETHER = {"API_KEY", "PASSWORD", "URL_PASSWORD"}  # by which word it is called is no fault


def run(peers: Sequence[str]) -> Report:
    report = Report("pii")
    RESULTS.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pii-", dir=RESULTS)))
        corpus.write(folder / "sample.jsonl", SAMPLE_BYTES, SEED)
        truth = _truth(folder / "sample.jsonl")
        contenders = _started(stack, report, folder / "sample.jsonl", peers)
        _compare(report, contenders, truth)
        measured = _measured(contenders)
    for name, contender in contenders.items():
        report.commands[name] = contender.command.replace(str(folder), "FOLDER").replace(str(ROOT), ".")
        report.ours[f"{name}_peak_mib"] = contender.memory.peak_bytes / 2**20
    _judge(report, measured)
    return report


def _started(stack: ExitStack, report: Report, sample: Path, peers: Sequence[str]) -> dict[str, Actor]:
    contenders: dict[str, Actor] = {}
    for name in (OURS, *peers):
        arguments = [str(sample), str(ROOT)] if name == OURS else [str(sample)]
        if name in REQUIREMENTS and (reason := reason_missing(name)):
            report.failed_peers[name] = reason
            continue
        try:
            interpreter = python(name) if name in REQUIREMENTS else Path(sys.executable)
            target = f"benchmarks/pii/contenders.py:{CLASSES[name]}"
            actor = stack.enter_context(Actor(target, *arguments, env=ONE_THREAD, python=interpreter))
            actor.call("measure", 300, seconds=1.0)  # warm-up, and the sample is in memory
            contenders[name] = actor
        except ActorFailed as error:
            if name == OURS:
                raise
            report.failed_peers[name] = str(error)
    return contenders


def _compare(report: Report, contenders: dict[str, Actor], truth: list[list[Span]]) -> None:
    """Before any is timed: what they find of what was planted, each on the kinds that it looks for."""
    ours = contenders[OURS].call("spans", rows=TRUTH_ROWS)
    for kind in sorted({kind for spans in truth for _, _, kind in spans} - {corpus.EITHER}):
        report.ours[f"f1_{kind}"] = f1(ours, truth, {kind})
    report.ours["f1"] = f1(ours, truth, set(contenders[OURS].call("known")))
    for name, contender in contenders.items():
        if name == OURS:
            continue
        kinds = set(contender.call("known"))
        theirs, mine = f1(contender.call("spans", 600, rows=TRUTH_ROWS), truth, kinds), f1(ours, truth, kinds)
        report.ours[f"{name}_f1_of_its_kinds"], report.ours[f"f1_of_{name}s_kinds"] = theirs, mine
        report.checks[f"an F1 no lower than {name}'s on the kinds that it looks for"] = mine >= theirs


def f1(found: Sequence[Sequence[Any]], truth: Sequence[Sequence[Any]], kinds: set[str]) -> float:
    """Of spans; one counts where it covers at least half of what it and the true one cover together."""
    hits = right = wrong = 0
    for of_found, of_truth in zip(found, truth, strict=True):
        either = [(start, end) for start, end, kind in of_truth if kind == corpus.EITHER]
        judged = [span for span in of_found if not any(start <= span[0] < end for start, end in either)]
        mine, true = _of_kinds(judged, kinds), _of_kinds(of_truth, kinds)
        hits += same(mine, true)
        wrong += len(mine)
        right += len(true)
    return 2 * hits / (right + wrong) if right + wrong else 1.0


def _of_kinds(spans: Iterable[Any], kinds: set[str]) -> list[Span]:
    return [(start, end, "NAMED" if kind in TOLD_TOGETHER else kind) for start, end, kind in spans if kind in kinds]


def _truth(sample: Path) -> list[list[Span]]:
    with sample.open() as file:
        return [
            [tuple(span) for span in json.loads(line)["truth"]]
            for line, _ in zip(file, range(TRUTH_ROWS), strict=False)
        ]


def _measured(contenders: dict[str, Actor]) -> dict[str, list[dict[str, float]]]:
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number, name in alternated(list(contenders)):
        figures = contenders[name].call("measure", 600, seconds=ROUND_S)
        measured[name].append(figures)
        told(round=number + 1, contender=name, mb_per_second=_rate(figures))
    return measured


def _judge(report: Report, measured: dict[str, list[dict[str, float]]]) -> None:
    halves = [median(figures["half"] for figures in rounds) for rounds in measured.values()]
    report.checks["half the sample took half the time"] = all(0.85 <= half <= 1.15 for half in halves)
    rates = {name: [_rate(figures) for figures in rounds] for name, rounds in measured.items()}
    for name, each in rates.items():
        report.ours[f"{name}_mb_per_second"] = median(each)
        if name != OURS:
            ratios = [mine / theirs for mine, theirs in zip(rates[OURS], each, strict=True)]
            report.ratios[name] = Ratio.of(ratios, TARGETS.get(name))


def _rate(figures: dict[str, float]) -> float:
    return figures["bytes"] / figures["seconds"] / 1e6
