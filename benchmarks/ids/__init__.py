"""An id of another organization, and one that never existed: how long their answers take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from benchmarks.actor import Actor
from benchmarks.harness import ROUNDS, Limit, Report, median_interval, told
from benchmarks.home import fresh_home

PEERS: dict[str, str] = {}
PAIRS_A_ROUND = 200
MAX_APART_MS = 5.0
OPERATIONS = ("query", "mutation")
UNHURRIED = {"REQUESTS_PER_MINUTE": "1000000"}


def run(peers: Sequence[str]) -> Report:
    report = Report("ids")
    apart: dict[str, list[float]] = {kind: [] for kind in OPERATIONS}
    took: dict[str, list[float]] = {kind: [] for kind in OPERATIONS}
    with fresh_home() as home, Actor("benchmarks.ids.pairs:Pairs", env=home | UNHURRIED) as outsider:
        for kind in OPERATIONS:
            outsider.call("measure", kind=kind, pairs=20)  # warm-up
        for number in range(ROUNDS):
            for kind in OPERATIONS:
                pairs = outsider.call("measure", timeout_s=600, kind=kind, pairs=PAIRS_A_ROUND)
                apart[kind].append(median(foreign - unknown for foreign, unknown in pairs))
                took[kind].append(median(unknown for _, unknown in pairs))
            told(round=number + 1, **{f"{kind}_apart_ms": apart[kind][-1] for kind in OPERATIONS})
        answers = {kind: outsider.call("kinds_of_answers", kind=kind) for kind in OPERATIONS}
    report.commands["outsider"] = outsider.command
    report.checks = {f"each {kind} is answered alike, byte for byte": answers[kind] == 1 for kind in OPERATIONS}
    report.ours = dict(_figures(apart, took))
    report.limits = {
        f"{kind}_apart_ms": Limit(max(abs(value) for value in apart[kind]), MAX_APART_MS) for kind in OPERATIONS
    }
    return report


def _figures(apart: dict[str, list[float]], took: dict[str, list[float]]) -> Iterator[tuple[str, float]]:
    """The differences with their interval: where it holds 0, there may be none."""
    for kind in OPERATIONS:
        yield f"{kind}_ms", median(took[kind])
        low, high = median_interval(apart[kind])
        yield f"{kind}_apart_from_ms", low
        yield f"{kind}_apart_to_ms", high
