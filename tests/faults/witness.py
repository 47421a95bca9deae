"""What trainers did, told by themselves outside the platform: a log, and a lock on each job.

A record is one line of JSON, written with one call: {job, fence, pid, event, step, at}; `at` is CLOCK_MONOTONIC, which is
the same for all processes of a machine and which no moved clock moves. Events: started, step, saving (where that is
slow), checkpoint, adapter, finished, and SECOND_HOLDER, where another trainer of the same job was at work at that moment.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WITNESS = "FAULTS_WITNESS"  # the folder


@dataclass(frozen=True)
class Record:
    job: str
    fence: int
    pid: int
    event: str
    step: int
    at: float


class Witness:
    """One trainer's pen."""

    def __init__(self, job: str, fence: int) -> None:
        self._job, self._fence = job, fence
        self._folder = Path(os.environ[WITNESS])
        self._log = os.open(self._folder / "log.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)

    def write(self, event: str, step: int = 0) -> None:
        record = {
            "job": self._job,
            "fence": self._fence,
            "pid": os.getpid(),
            "event": event,
            "step": step,
            "at": time.monotonic(),
        }
        os.write(self._log, json.dumps(record).encode() + b"\n")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the job's lock; who finds it held says so, and goes on, for that is what is to be seen."""
        lock = os.open(self._folder / f"{self._job}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.write("SECOND_HOLDER")
        try:
            yield
        finally:
            os.close(lock)


def read(folder: Path) -> list[Record]:
    path = folder / "log.jsonl"
    if not path.exists():
        return []
    return [Record(**json.loads(line)) for line in path.read_text().splitlines()]
