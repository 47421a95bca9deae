"""A gigabyte is sent and made into a version: what the web processes take for it, and what others notice of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from benchmarks.actor import Actor
from benchmarks.harness import Limit, Report, quantile, told
from benchmarks.home import fresh_home
from benchmarks.large_upload.corpus import write
from benchmarks.soak.gauges import role_of
from benchmarks.soak.installation import Installation
from benchmarks.soak.mix import RUN
from platform_site.demo import operations
from platform_site.demo.client import ENDED, Client
from tests.faults import process_table

PEERS: dict[str, str] = {}
SIZE_BYTES = 1_000_000_000
SEED = 23
ROUNDS = 3
ALONE_S = 30.0
REQUESTS_PER_SECOND = 15.0
SAMPLE_EVERY_S = 0.25
MAX_ADDED_MIB = 200.0
MAX_P95_RATIO = 2.0
PATIENCE_S = 600.0
ROOM = {"QUOTA_STORAGE_BYTES": str(100 * SIZE_BYTES)}


def run(peers: Sequence[str], size_bytes: int = SIZE_BYTES) -> Report:
    report = Report("large_upload", rounds=ROUNDS)
    with fresh_home() as home, Installation(home | ROOM) as platform:
        file = platform.home / "large.jsonl"  # another one has rows.jsonl
        written = write(file, size_bytes, SEED)
        told(file_mb=written / 1e6)
        assert written >= size_bytes
        with Actor("benchmarks.soak.tenants:Tenants", platform.url, env=platform.environment) as tenants:
            known = tenants.call("fill", 600, count=2)
        rounds = [_round(number + 1, platform, known, file) for number in range(ROUNDS)]
    report.checks = {
        "each version has all rows, kept or left out with a reason": all(each["accounted_for"] for each in rounds),
        "all that was written was sent": all(each["sent_bytes"] >= size_bytes for each in rounds),
        "all others' requests were answered": all(each["failed"] == 0 for each in rounds),
    }
    report.ours = {
        name: median(each[name] for each in rounds)
        for name in ("sent_s", "made_s", "alone_p95_s", "sending_p95_s", "making_p95_s")
    }
    report.limits = {
        "web_added_mib": Limit(max(each["added_mib"] for each in rounds), MAX_ADDED_MIB),
        "p95_ratio": Limit(median(each["p95_ratio"] for each in rounds), MAX_P95_RATIO),
    }
    return report


def _round(number: int, platform: Installation, known: dict[str, Any], file: Path) -> dict[str, Any]:
    sender, asker = _client(platform.url, known["clients"][0][-1]), known["clients"][1][-1]
    with _asking(platform.url, asker["token"], known["tenants"][1]["runs"][0]) as asked:
        time.sleep(ALONE_S)
        with _web_memory(platform.home) as memory:
            begun = time.monotonic()
            ticket = sender.ask(
                operations.START_UPLOAD, input={"fileName": file.name, "sizeBytes": file.stat().st_size}
            )
            sender.send_file(ticket["url"], dict(ticket["headers"]), file, lambda sent: None)
            sent = time.monotonic()
            wanted = {
                "name": f"Large {number}",
                "uploadId": ticket["upload"]["id"],
                "recipe": {"split": {"seed": number}},
            }
            version = _made(sender, sender.ask(operations.CREATE_DATASET, input=wanted)["id"])
            ended = time.monotonic()
        time.sleep(ALONE_S)
    sender.close()

    def p95(*spans: tuple[float, float]) -> float:
        return quantile([took for due, took, _ in asked if any(begin <= due < end for begin, end in spans)], 0.95)

    alone = p95((0.0, begun), (ended, float("inf")))
    figures = {
        "sent_s": sent - begun,
        "made_s": ended - sent,
        "alone_p95_s": alone,
        "sending_p95_s": p95((begun, sent)),
        "making_p95_s": p95((sent, ended)),
        "p95_ratio": p95((begun, ended)) / alone,
        "sent_bytes": file.stat().st_size,
        "added_mib": (max(memory) - memory[0]) / 2**20,
    }
    told(round=number, **figures)
    left_out = sum(step["rowsDropped"] for step in version["steps"])
    kept = sum(split["rows"] for split in version["splits"])
    return figures | {
        "failed": sum(not answered for _, _, answered in asked),
        "accounted_for": version["status"] == "SUCCEEDED" and version["rowsIn"] == kept + left_out > 0,
    }


def _client(url: str, session: dict[str, Any]) -> Client:
    client = Client(url)
    client.use({"accessToken": session["token"], "expiresAt": "9999-01-01T00:00:00+00:00"})
    return client


def _made(client: Client, version_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        version: dict[str, Any] = client.ask(operations.DATASET_VERSION, id=version_id)
        if version["status"] in ENDED:
            return version
        time.sleep(1.0)
    raise TimeoutError(f"The version has not ended within {PATIENCE_S:.0f} s.")


@contextmanager
def _asking(url: str, token: str, run: str) -> Iterator[list[tuple[float, float, bool]]]:
    """(when it was due, how long it took from then, whether it was answered) of requests that come evenly, one connection's."""
    asked: list[tuple[float, float, bool]] = []
    body = {"query": RUN, "variables": {"id": run}}

    def ask(stopped: threading.Event) -> None:
        with httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as client:
            due = time.monotonic()
            while not stopped.is_set():
                time.sleep(max(0.0, due - time.monotonic()))
                answer = client.post(f"{url}/graphql", json=body)
                asked.append((due, time.monotonic() - due, answer.status_code == 200 and "errors" not in answer.json()))
                due += 1 / REQUESTS_PER_SECOND

    with _meanwhile(ask, "asking"):
        yield asked


@contextmanager
def _web_memory(home: Path) -> Iterator[list[int]]:
    """Bytes of their own, of all web processes together, sampled from before the block until after it."""
    web = [psutil.Process(each.pid) for each in process_table.table(home) if role_of(each.role) == "web"]
    samples = [_own_bytes(web)]

    def sample(stopped: threading.Event) -> None:
        while not stopped.wait(SAMPLE_EVERY_S):
            samples.append(_own_bytes(web))

    with _meanwhile(sample, "memory"):
        yield samples


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """`work` in a thread of its own, which is told where the block ends, and waited for."""
    stopped = threading.Event()
    thread = threading.Thread(target=work, args=(stopped,), name=name)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _own_bytes(processes: list[psutil.Process]) -> int:
    return sum(each.memory_full_info().uss for each in processes)
