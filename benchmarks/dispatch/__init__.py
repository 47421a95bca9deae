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
        jobs: list[dict[str, Any]] = []
        for number in range(ROUNDS):
            jobs += (measured := platform.call("submit", timeout_s=600, count=JOBS_A_ROUND))
            told(round=number + 1, p50_s=quantile([job["dispatch_s"] for job in measured], 0.5))
    report.commands["platform"] = platform.command
    report.checks = {
        "each job succeeded at its first attempt": all(
            job["statuses"] == ["QUEUED", "RUNNING", "SUCCEEDED"] for job in jobs
        ),
        "the processes' clocks and the database's are one": all(job["clocks_agree"] for job in jobs),
    }
    seconds = [job["dispatch_s"] for job in jobs]
    report.ours = {"jobs": len(jobs), "p50_s": quantile(seconds, 0.5), "max_s": quantile(seconds, 1.0)}
    report.ours["platform_peak_mib"] = platform.memory.peak_bytes / 2**20
    report.limits = {"p95_s": Limit(quantile(seconds, 0.95), MAX_P95_S)}
    return report
