"""Documents that ask for far too much, or are wrong in costly ways: how long each is looked at before it is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from benchmarks.actor import Actor
from benchmarks.harness import ROUNDS, Limit, Report, told
from benchmarks.home import fresh_home

PEERS: dict[str, str] = {}
WITHIN_MS = 50.0
UNHURRIED = {"REQUESTS_PER_MINUTE": "1000000"}


def run(peers: Sequence[str]) -> Report:
    report = Report("hostile")
    took_ms: dict[str, list[float]] = defaultdict(list)
    with fresh_home() as home, Actor("benchmarks.hostile.attacker:Attacker", env=home | UNHURRIED) as attacker:
        attacker.call("measure")  # warm-up
        for number in range(ROUNDS):
            measured = attacker.call("measure")
            for document, ms in measured.items():
                took_ms[document].append(ms)
            worst = max(measured, key=measured.__getitem__)
            told(round=number + 1, documents=len(measured), slowest=worst, ms=measured[worst])
        report.checks["each is refused"] = attacker.call("are_all_refused")
    report.commands["attacker"] = attacker.command
    report.ours = {document: median(rounds) for document, rounds in took_ms.items()}
    report.limits["slowest_ms"] = Limit(max(max(rounds) for rounds in took_ms.values()), WITHIN_MS)
    return report
