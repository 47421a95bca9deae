"""The child's side of a supervised job: heavy work runs as `python -m <package> ATTEMPT_DIR`, and never calls back.

It imports neither Django nor anything of the platform, because the same command runs in a remote container. The protocol:

    run.json        what to do, written by the supervisor before the start
    events.jsonl    what happened so far, one JSON object a line, appended by the child
    result.json     how it ended, written last: {"status": "succeeded" | "failed" | "interrupted", ...}

A child must not outlive its supervisor: the supervisor writes a byte into a pipe (the descriptor in LEASE_FD) at each
renewed lease, and the child stops at end of file or after 45 seconds of silence.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

LEASE_FD = "PLATFORM_LEASE_FD"
SILENCE_LIMIT_S = 45.0
EXIT_ORPHANED = 75


class ChildError(Exception):
    """A failure that the user can understand: an upper-case code, and a sentence that says where and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Interrupted(Exception):
    """SIGTERM arrived; whatever was worth keeping has been saved."""


class EventLog:
    """Appends events to a file, each line whole: a reader that stops at the last newline never sees half an event."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def write(self, kind: str, **fields: Any) -> None:
        event = {"kind": kind, "at": datetime.now(UTC).isoformat(), **fields}
        self._file.write(json.dumps(_finite(event), ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def log(self, text: str, level: str = "INFO") -> None:
        self.write("LogLine", level=level, text=text)


class Attempt:
    """One attempt at a job, as the child sees it: its folder, its orders, its events, and whether to stop.

    Used as a context manager it turns what the body raises into result.json, and the absence of a result into a failure.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.orders: dict[str, Any] = json.loads((folder / "run.json").read_text())
        self.events = EventLog(folder / "events.jsonl")
        self._stop = threading.Event()
        self._finished = False

    def __enter__(self) -> Attempt:
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the supervisor, who sends SIGTERM
        die_with_supervisor()
        return self

    @property
    def should_stop(self) -> bool:
        return self._stop.is_set()

    def check_stop(self) -> None:
        """Raise Interrupted once SIGTERM has arrived."""
        if self._stop.is_set():
            raise Interrupted

    def succeed(self, **result: Any) -> None:
        self._finish({"status": "succeeded", **result})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, ChildError):
            self._finish({"status": "failed", "code": error.code, "message": error.message})
        elif isinstance(error, Interrupted):
            self._finish({"status": "interrupted"})
        elif error is not None:
            return False  # a bug: the traceback goes to the log, and the supervisor reports the exit status
        return True

    def _finish(self, result: dict[str, Any]) -> None:
        if not self._finished:
            write_whole(self.folder / "result.json", json.dumps(_finite(result), ensure_ascii=False, indent=1).encode())
            self._finished = True


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either absent (or as it was) or whole, whatever dies meanwhile."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def die_with_supervisor(exit_now: Callable[[int], NoReturn] = os._exit) -> None:
    """Start watching the lease pipe, and ask the kernel, too: a kill -9 of the supervisor leaves no child behind."""
    descriptor = os.environ.get(LEASE_FD)
    if descriptor is None:
        return  # started by hand, or in a container whose orchestrator does the supervising
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch(fd: int) -> None:
        while True:
            readable, _, _ = select.select([fd], [], [], SILENCE_LIMIT_S)
            if not readable or not os.read(fd, 4096):
                exit_now(EXIT_ORPHANED)

    threading.Thread(target=watch, args=(int(descriptor),), name="lease", daemon=True).start()


def _finite(value: Any) -> Any:
    """Strict JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
