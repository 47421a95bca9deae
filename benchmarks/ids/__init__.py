"""An id of another organization, and one that never existed: how long their answers take."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import ROUNDS, Limit, Report, median_interval, told
from benchmarks.home import fresh_home

PEERS: dict[str, str] = {}
PAIRS_A_ROUND = 200
MAX_DIFFERENCE_MS = 5.0
OPERATIONS = ("query", "mutation")
UNHURRIED = {"REQUESTS_PER_MINUTE": "1000000"}


def run(peers: Sequence[str]) -> Report:
    report = Report("ids")
    differences: dict[str, list[float]] = {kind: [] for kind in OPERATIONS}
    medians: dict[str, list[float]] = {kind: [] for kind in OPERATIONS}
    times: dict[str, list[float]] = {kind: [] for kind in OPERATIONS}
    with fresh_home() as home, Actor("benchmarks.ids.pairs:Pairs", env=home | UNHURRIED) as outsider:
        for kind in OPERATIONS:
            outsider.call("measure", kind=kind, pairs=20)  # warm-up
        for number in range(ROUNDS):
            for kind in OPERATIONS:
                pairs = outsider.call("measure", timeout_s=600, kind=kind, pairs=PAIRS_A_ROUND)
                apart = [foreign - unknown for foreign, unknown in pairs]
                differences[kind] += apart
                medians[kind].append(median(apart))
                times[kind] += [unknown for _, unknown in pairs]
            told(round=number + 1, **{f"{kind}_ms": medians[kind][-1] for kind in OPERATIONS})
        kinds_of_answers = {kind: outsider.call("kinds_of_answers", kind=kind) for kind in OPERATIONS}
    report.commands["outsider"] = outsider.command
    report.checks = {
        f"each {kind} is answered alike, byte for byte": kinds_of_answers[kind] == 1 for kind in OPERATIONS
    }
    report.ours = dict(_figures(differences, times))
    report.limits = {
        f"{kind}_difference_ms": Limit(max(abs(value) for value in medians[kind]), MAX_DIFFERENCE_MS)
        for kind in OPERATIONS
    }
    return report


def _figures(differences: dict[str, list[float]], times: dict[str, list[float]]) -> Any:
    """The difference of all pairs is told with its interval: of 0 it may well be one side."""
    for kind, apart in differences.items():
        low, high = median_interval(apart)
        yield f"{kind}_median_ms", median(times[kind])
        yield f"{kind}_difference_low_ms", low
        yield f"{kind}_difference_high_ms", high
