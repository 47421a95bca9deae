"""From a job's submission on an idle platform to its claim by a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import ROUNDS, Limit, Report, quantile, told
from benchmarks.home import fresh_home

PEERS: dict[str, str] = {}
JOBS_A_ROUND = 20
MAX_P95_S = 0.25
NO_INFERENCE = {"INFERENCE_URL": "http://127.0.0.1:9"}  # `make up` starts none, and nobody asks it


def run(peers: Sequence[str]) -> Report:
    report = Report("dispatch")
    with fresh_home() as home, Actor("benchmarks.dispatch.idle:Idle", env=home | NO_INFERENCE) as platform:
        platform.call("submit", count=3)  # warm-up
        rounds: list[list[dict[str, Any]]] = []
        for number in range(ROUNDS):
            rounds.append(platform.call("submit", timeout_s=600, count=JOBS_A_ROUND))
            told(round=number + 1, p50_s=_quantile_s(rounds[-1], 0.5))
    jobs = [job for measured in rounds for job in measured]
    report.commands["platform"] = platform.command
    report.checks = {
        "each job succeeded at its first attempt": all(
            job["statuses"] == ["QUEUED", "RUNNING", "SUCCEEDED"] for job in jobs
        ),
    }
    report.ours = {"jobs": len(jobs), "p50_s": _quantile_s(jobs, 0.5), "max_s": _quantile_s(jobs, 1.0)}
    report.ours["platform_peak_mib"] = platform.memory.peak_bytes / 2**20
    report.limits = {"p95_s": Limit(max(_quantile_s(measured, 0.95) for measured in rounds), MAX_P95_S)}
    return report


def _quantile_s(jobs: Sequence[dict[str, Any]], share: float) -> float:
    return quantile([job["dispatch_s"] for job in jobs], share)
