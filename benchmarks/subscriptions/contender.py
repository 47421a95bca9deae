"""One contender: an installation with its runs, a web process, watchers, and a worker that logs events."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.actor import Actor
from benchmarks.harness import quantile
from benchmarks.subscriptions.outage import redis_away
from benchmarks.subscriptions.runs import Runs
from benchmarks.subscriptions.web import Web

RUNS = 200
WATCHERS_A_RUN = 10
EVENTS_PER_SECOND = 20
RECONNECTS = 3
REDIS_AWAY_S = 3.0
BETWEEN_FAULTS_S = 5.0

Figures = dict[str, float]


class Contender:
    def __init__(self, application: str) -> None:
        self._application = application
        self._home = Path(os.environ["PLATFORM_HOME"])
        self._runs = Runs.make(RUNS)
        self._stack = ExitStack()
        all_at_once = {"CONCURRENT_RUNS": str(RUNS)}
        worker = Actor("benchmarks.subscriptions.worker:Worker", str(EVENTS_PER_SECOND), env=all_at_once)
        self._worker = self._stack.enter_context(worker)

    def close(self) -> None:
        self._stack.close()

    def measure(self, seconds: float) -> Figures:
        """A round: all connect to a fresh web process, and then events come for so long."""
        with self._connected() as (web, watchers, figures):
            with self._events():
                begun, web_cpu_s, watchers_cpu_s = time.time(), web.cpu_s(), watchers.call("cpu_s")
                time.sleep(seconds)
                ended = time.time()
                figures["server_cpu"] = (web.cpu_s() - web_cpu_s) / (ended - begun)
                figures["client_cpu"] = (watchers.call("cpu_s") - watchers_cpu_s) / (ended - begun)
            figures |= self._compared(watchers)
            figures["kib_a_client"] = _kib_a_client(web, figures)
            return figures | _latency("latency", watchers, begun, ended)

    def survive(self) -> Figures:
        """All sockets are cut at once, three times; then Redis is away for a while. Events come all the time."""
        with self._connected() as (web, watchers, figures):
            with self._events():
                begun, back_s, web_cpu_s = time.time(), [], web.cpu_s()
                for _ in range(RECONNECTS):
                    time.sleep(BETWEEN_FAULTS_S)
                    back_s.append(self._all_back(watchers, "reconnect"))
                time.sleep(BETWEEN_FAULTS_S)
                figures |= {"reconnect_s": max(back_s), "reconnect_cpu_s": (web.cpu_s() - web_cpu_s) / RECONNECTS}
                figures |= _latency("reconnects", watchers, begun, time.time())
                begun = time.time()
                with redis_away(self._home):
                    time.sleep(REDIS_AWAY_S)
                time.sleep(BETWEEN_FAULTS_S)
                figures |= _latency("redis", watchers, begun, time.time())
            return figures | self._compared(watchers) | {"kib_a_client": _kib_a_client(web, figures)}

    @contextmanager
    def _connected(self) -> Iterator[tuple[Web, Actor, Figures]]:
        """A fresh web process, and all its clients."""
        watchers = Actor("benchmarks.subscriptions.watchers:Watchers")
        with Web(self._application, self._home) as web, watchers:
            watchers.call("connect", url=web.url, clients=self._runs.clients(1)[:20])  # what is loaded with the first
            watchers.call("disconnect")
            clients, idle_mib, idle_cpu_s = self._runs.clients(WATCHERS_A_RUN), web.memory_mib(), web.cpu_s()
            connect_s = self._all_back(watchers, "connect", url=web.url, clients=clients)
            figures = {"clients": len(clients), "connect_s": connect_s, "connect_cpu_s": web.cpu_s() - idle_cpu_s}
            yield web, watchers, figures | {"idle_mib": idle_mib}

    def _all_back(self, watchers: Actor, how: str, **arguments: Any) -> float:
        """Seconds until all are let in and have heard what had been logged by then."""
        begun = time.monotonic()
        watchers.call(how, **arguments)
        watchers.call("catch_up", last=self._runs.last_sequences())
        return time.monotonic() - begun

    @contextmanager
    def _events(self) -> Iterator[None]:
        self._worker.call("start")
        try:
            yield
        finally:
            self._worker.call("stop")

    def _compared(self, watchers: Actor) -> Figures:
        """What each watcher heard in the end, beside the log of its run."""
        watchers.call("catch_up", last=self._runs.last_sequences())
        log = self._runs.log()
        figures: Figures = {"events": sum(map(len, log.values())), "lost": 0, "doubled": 0, "other_than_the_log": 0}
        for run, heard in watchers.call("heard"):
            sequences = {sequence for sequence, _ in heard}
            figures["lost"] += len(log[run]) - len(sequences)
            figures["doubled"] += len(heard) - len(sequences)
            figures["other_than_the_log"] += heard != log[run]
        return figures


def _kib_a_client(web: Web, figures: Figures) -> float:
    return 1024 * (web.memory_mib() - figures["idle_mib"]) / figures["clients"]


def _latency(name: str, watchers: Actor, since: float, until: float) -> Figures:
    """Of the events that were logged in this time, from there to each watcher."""
    seconds = watchers.call("latencies", since=since, until=until)
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {f"{name}_{label}_s": quantile(seconds, share) for label, share in shares.items()}
