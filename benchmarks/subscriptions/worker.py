"""A worker that holds all runs, and logs a step of one of them at a time, at a steady rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from common.claims import claim
from common.events import Event
from common.jobs import Lease
from common.tenancy import organizations_scope
from training.models import TrainingRun

STEP = {"total_steps": 1_000_000, "loss": 1.25, "learning_rate": 0.0002, "grad_norm": 0.5, "tokens_per_second": 900.0}


class Worker:
    def __init__(self, events_per_second: str) -> None:
        self._interval_s = 1 / float(events_per_second)
        self._leases = list(_claimed())
        self._steps = 0
        self._stop = threading.Event()

    def start(self) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._log_steps)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _log_steps(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self._steps += 1
            self._log(self._leases[self._steps % len(self._leases)])
            due += self._interval_s

    def _log(self, lease: Lease) -> None:
        """As common.supervision forwards what the trainer has written."""
        event = Event("StepLogged", {"step": self._steps, **STEP})
        with organizations_scope([lease.organization_id]):
            logged = TrainingRun.objects.held(lease).advance([event], step=self._steps, unproductive_attempts=0)
        assert logged is not None, "nobody else claims these runs"


def _claimed() -> Iterator[Lease]:
    while lease := claim(TrainingRun, "benchmark"):
        yield lease
