"""`python -m benchmarks.soak`: a mixed load on a whole platform; `make soak` brings locust along."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import RESULTS, shown, told
from benchmarks.home import fresh_home
from benchmarks.soak import records, verdict
from benchmarks.soak.gauges import Gauges, Sample
from benchmarks.soak.installation import WEB_THREADS, Installation
from benchmarks.soak.report import Soak
from benchmarks.soak.timeline import Timeline
from benchmarks.soak.waking import wake_all_threads
from platform_site.engines.place import ROOT

TENANTS = 200
RATE = 85.0  # requests a second; 80 have to be answered
QUOTA_PER_MINUTE = 1200
NOISE_RATES = [0.9 * QUOTA_PER_MINUTE / 60, 10 * QUOTA_PER_MINUTE / 60]  # within what is allowed, and far beyond
START_S = 10.0  # for locust
SETTLE_S = 180.0  # for queued runs to end, and for what Redis counted to expire
NOISE = [sys.executable, "-m", "benchmarks.soak.noise"]
LOCUST = ROOT / "var" / "locust" / "bin" / "python"


def main(arguments: list[str]) -> int:
    """The exit status: 0 where every promise is kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0, help="of steady load (default: half an hour)")
    parser.add_argument(
        "--rate", type=float, default=RATE, help=f"of requests, a second (default: {RATE:g}, as promised)"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what is asked, when, by whom")
    parser.add_argument("--locust", type=Path, default=LOCUST, help="a Python that has locust")
    asked = parser.parse_args(arguments)
    if not asked.locust.exists():
        parser.error(
            f"There is no {asked.locust}: `make soak` installs locust, or --locust names a Python that has it."
        )
    print(
        f"seed {asked.seed}: {shown(asked.seconds)} s of steady load, about {shown(_minutes(asked.seconds))} minutes in all"
    )
    with ExitStack() as stack:
        home = stack.enter_context(fresh_home())
        platform = stack.enter_context(Installation(home | {"REQUESTS_PER_MINUTE": str(QUOTA_PER_MINUTE)}))
        known = _filled(platform)
        gauges = stack.enter_context(Gauges(platform.home))
        return 0 if _soak(asked, platform, known, gauges) else 1


def _minutes(steady_s: float) -> float:
    return (Timeline(0, steady_s).end + START_S + 120) / 60


def _filled(platform: Installation) -> dict[str, Any]:
    with Actor("benchmarks.soak.tenants:Tenants", platform.url, env=platform.environment) as tenants:
        known: dict[str, Any] = tenants.call("fill", 600, count=TENANTS)
        return known


def _soak(asked: argparse.Namespace, platform: Installation, known: dict[str, Any], gauges: Gauges) -> bool:
    steady_s, seed = asked.seconds, asked.seed
    people = [
        (client["token"], tenant["version"])
        for tenant, clients in zip(known["tenants"], known["clients"], strict=True)
        for client in clients
        if "refresh_token" in client
    ]
    wake_all_threads(platform.url, gauges.web_processes * WEB_THREADS, gauges.database, people)
    timeline = Timeline(time.time() + START_S, steady_s)
    common = {"url": platform.url, "token_s": known["token_s"]}
    load = common | known | {"seed": seed, "rate": asked.rate, "spans": timeline.busy}
    noise = {"token": known["clients"][-1][-1]["token"], "run": known["tenants"][-1]["runs"][0]}
    spans = [timeline.within_quota, timeline.noise]
    neighbour = common | {"seed": seed + 1, "rates": NOISE_RATES, "spans": spans, "noise": noise}
    quiet_tenants = {"tenants": known["tenants"][:-1], "clients": known["clients"][:-1]}
    with _asking(_locust(asked.locust), platform.home, "load", load | quiet_tenants) as tenants:
        _sleep_until(timeline.quiet[1] - 1)
        before = gauges.read()
        told(part="steady load", seconds=steady_s)
        _sleep_until(timeline.before_neighbour[0])
        told(part="a noisy neighbour", seconds=timeline.end - timeline.before_neighbour[0])
        with _asking(NOISE, platform.home, "noise", neighbour) as noisy:
            pass
    after = _settled(gauges, before)
    soak = Soak(timeline, seed, records.read(tenants), records.read(noisy), gauges.samples, before, after)
    return soak.publish()


def _locust(python: Path) -> list[str]:
    quietly = ["--headless", "--users", "1", "--exit-code-on-error", "0", "--only-summary"]
    return [str(python), "-m", "locust", "--locustfile", str(ROOT / "benchmarks" / "soak" / "load.py"), *quietly]


@contextmanager
def _asking(command: list[str], home: Path, name: str, plan: dict[str, Any]) -> Iterator[Path]:
    """The file of records, once the block is over and the load has ended by itself."""
    folder = RESULTS / "soak"
    folder.mkdir(parents=True, exist_ok=True)
    path, told_to = folder / f"{name}.jsonl", home / f"{name}.json"
    told_to.write_text(json.dumps(plan | {"records": str(path)}))
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "SOAK_PLAN": str(told_to), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield path
        process.wait(max(end for _, end in plan["spans"]) - time.time() + 120)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise RuntimeError(f"The load ended with {process.returncode}: {folder / name}.log says why.")


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.time()))


def _settled(gauges: Gauges, before: Sample) -> Sample:
    """The platform as it comes to rest: queued runs end, and what was counted in Redis for a minute or two expires."""
    told(part="coming to rest", at_most_s=SETTLE_S)
    give_up_at = time.monotonic() + SETTLE_S
    while True:
        after = gauges.read()
        if time.monotonic() > give_up_at or all(each.is_kept for each in verdict.left_behind(before, after).values()):
            return after
        time.sleep(2)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped, and its files go
    sys.exit(main(sys.argv[1:]))
