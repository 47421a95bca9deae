"""What clients asked and were told, and which faults came when: kept as it happens, one line of JSON each.

All times are CLOCK_MONOTONIC. An operation is DONE where a success was answered, REFUSED where the platform said no, and
UNCLEAR where no answer came, or one that leaves it open: then it may have happened or not.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class Outcome(StrEnum):
    DONE = "DONE"
    REFUSED = "REFUSED"
    UNCLEAR = "UNCLEAR"


@dataclass
class Operation:
    """One call of a client; `value` is what was answered, or the reason, `status` the HTTP status of an unclear answer."""

    number: int
    client: str
    verb: str
    arguments: dict[str, Any]
    began: float
    ended: float = 0.0
    outcome: Outcome = Outcome.UNCLEAR
    value: Any = None
    status: int | None = None
    retry_after_s: float | None = None

    @property
    def is_done(self) -> bool:
        return self.outcome is Outcome.DONE


@dataclass
class Watcher:
    """One subscription with all its connections: the sequences it heard, in the order in which they came."""

    number: int
    job: str
    heard: list[int] = field(default_factory=list)
    last_status: str | None = None
    connections: int = 0


@dataclass
class Fault:
    """A fault that was proven to have happened; `ended` is when it was undone (at once for a kill)."""

    name: str
    target: str
    began: float
    ended: float | None = None
    run: str | None = None  # the one that the struck process was at work on, where there was one


class History:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._lock = threading.Lock()
        self.operations: list[Operation] = []
        self.watchers: list[Watcher] = []
        self.faults: list[Fault] = []
        self.left_out: list[str] = []

    def close(self) -> None:
        self._file.close()

    def call(self, client: str, verb: str, **arguments: Any) -> Operation:
        operation = Operation(len(self.operations) + 1, client, verb, arguments, time.monotonic())
        self.operations.append(operation)
        self._write("call", number=operation.number, client=client, verb=verb, **arguments)
        return operation

    def answer(self, operation: Operation, outcome: Outcome, value: Any) -> None:
        operation.ended, operation.outcome, operation.value = time.monotonic(), outcome, value
        self._write("answer", number=operation.number, outcome=outcome, value=value)

    def watch(self, job: str) -> Watcher:
        watcher = Watcher(len(self.watchers) + 1, job)
        self.watchers.append(watcher)
        self._write("watch", watcher=watcher.number, job=job)
        return watcher

    def hear(self, watcher: Watcher, sequence: int, status: str | None) -> None:
        watcher.heard.append(sequence)
        watcher.last_status = status or watcher.last_status
        self._write("heard", watcher=watcher.number, sequence=sequence, status=status)

    def fault(self, name: str, target: str, run: str | None = None) -> Fault:
        fault = Fault(name, target, time.monotonic(), run=run)
        self.faults.append(fault)
        self._write("fault", name=name, target=target, run=run)
        return fault

    def healed(self, fault: Fault) -> None:
        fault.ended = time.monotonic()
        self._write("healed", name=fault.name, target=fault.target)

    def leave_out(self, what: object, why: object) -> None:
        """A fault that could not be brought about, or not just then."""
        self.left_out.append(f"left out: {what}: {why}")
        self.note(self.left_out[-1])

    def note(self, text: str) -> None:
        self._write("note", text=text)

    def _write(self, record: str, **fields: Any) -> None:
        line = json.dumps({"at": round(time.monotonic(), 4), "record": record, **fields}, default=str)
        with self._lock:
            self._file.write(line + "\n")
