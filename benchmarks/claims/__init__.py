"""Claims a second from 10,000 queued jobs of 200 organizations, against a queue of 100."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import Ratio, Report, alternated, told
from benchmarks.home import fresh_home

LONG = "long_queue"
PEERS = {"short_queue": "the same from 100 queued jobs, one each of 100 organizations"}
QUEUES = {LONG: (200, 10_000), "short_queue": (100, 100)}  # organizations that have queued jobs, jobs
TARGET = 0.5
ROUND_S = 5.0


def run(peers: Sequence[str]) -> Report:
    report = Report("claims")
    with ExitStack() as stack:
        queues = {name: stack.enter_context(_queue(name, stack.enter_context(fresh_home()))) for name in (LONG, *peers)}
        for queue in queues.values():
            queue.call("measure", seconds=1.0)  # warm-up
        measured: dict[str, list[dict[str, Any]]] = {name: [] for name in queues}
        for number, name in alternated(list(queues)):
            figures = queues[name].call("measure", seconds=ROUND_S)
            measured[name].append(figures)
            told(round=number + 1, contender=name, claims_per_second=figures["claims_per_second"])
    _check(report, measured)
    rates = {name: [figures["claims_per_second"] for figures in rounds] for name, rounds in measured.items()}
    for name, queue in queues.items():
        report.commands[name] = queue.command
        report.ours[f"{name}_claims_per_second"] = median(rates[name])
        report.ours[f"{name}_peak_mib"] = queue.memory.peak_bytes / 2**20
    for peer in peers:
        report.ratios[peer] = Ratio.of(
            [long / short for long, short in zip(rates[LONG], rates[peer], strict=True)], TARGET
        )
    return report


def _queue(name: str, home: dict[str, str]) -> Actor:
    return Actor("benchmarks.claims.queue:Queue", *(str(number) for number in QUEUES[name]), env=home)


def _check(report: Report, measured: dict[str, list[dict[str, Any]]]) -> None:
    every = [figures for rounds in measured.values() for figures in rounds]
    halves = [median(figures["half"] for figures in rounds) for rounds in measured.values()]
    report.checks = {
        "each claim took another job": all(figures["distinct"] == figures["claims"] for figures in every),
        "the queue kept its length": all(figures["queued_before"] == figures["queued_after"] for figures in every),
        "half the claims took half the time": all(0.45 <= half <= 0.55 for half in halves),
    }
