"""The child's side of a supervised job: heavy work runs as `python -m <package> ATTEMPT_DIR`, and never calls back.

It imports neither Django nor anything of the platform, because the same command runs in a remote container. The protocol:

    run.json        what to do, written by the supervisor before the start
    events.jsonl    what happened so far, one JSON object a line, appended by the child
    result.json     how it ended, written last: {"status": "succeeded" | "failed" | "interrupted", ...}

A child must not outlive its supervisor: the supervisor writes a byte into a pipe (the descriptor in LEASE_FD) at each
renewed lease, and the child stops at end of file or after 45 seconds of silence (lifeline.py).

Where even result.json finds no room, the exit status says so: EXIT_DISK_FULL.
"""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from common import lifeline

LEASE_FD = "PLATFORM_LEASE_FD"
EXIT_DISK_FULL = 74
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
MAKE_ROOM = "Start again once its operators have made room."


class ChildError(Exception):
    """A failure that the user can understand: an upper-case code, and a sentence that says where and what to do."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class DiskFull(ChildError):
    """There is no room for something; what was there before is as it was."""

    def __init__(self, message: str) -> None:
        super().__init__("DISK_FULL", message)


class Interrupted(Exception):
    """SIGTERM arrived; whatever was worth keeping has been saved."""


class EventLog:
    """Appends events to a file, each line whole: a reader that stops at the last newline never sees half an event."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, kind: str, **fields: Any) -> None:
        """Append an event. Raises DiskFull where there is no room for it, and the log is as it was."""
        event = {"kind": kind, "at": datetime.now(UTC).isoformat(), **fields}
        line = json.dumps(_finite(event), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        with room_for("the log of events", len(line), self._path.parent):
            self._append(line)

    def log(self, text: str, level: str = "INFO") -> None:
        self.write("LogLine", level=level, text=text)

    def _append(self, line: bytes) -> None:
        end, written = os.fstat(self._file.fileno()).st_size, 0
        try:
            while written < len(line):  # the last free bytes of a disk take a part of a line, without an error
                written += self._file.write(line[written:])
        finally:
            if 0 < written < len(line):
                self._file.truncate(end)


class Attempt:
    """One attempt at a job, as the child sees it: its folder, its orders, its events, and whether to stop.

    Used as a context manager it turns what the body raises into result.json, and the absence of a result into a failure.
    """

    def __init__(self, folder: Path, limits: lifeline.Limits = lifeline.LIMITS) -> None:
        self.folder = folder
        self.orders: dict[str, Any] = json.loads((folder / "run.json").read_text())
        self.events = EventLog(folder / "events.jsonl")
        self._limits = limits
        self._stop = threading.Event()
        self._interruptible = False
        self._finished = False

    def __enter__(self) -> Attempt:
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the supervisor, who sends SIGTERM
        lease = os.environ.get(LEASE_FD)
        if lease is not None:  # else started by hand, or in a container whose orchestrator does the supervising
            lifeline.hold_on(int(lease), self._limits)
        return self

    @property
    def should_stop(self) -> bool:
        return self._stop.is_set()

    def check_stop(self) -> None:
        """Raise Interrupted once SIGTERM has arrived."""
        if self._stop.is_set():
            raise Interrupted

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within this SIGTERM raises Interrupted wherever the main thread is: for work that leaves nothing half done."""
        self._interruptible = True
        try:
            self.check_stop()
            yield
        finally:
            self._interruptible = False

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        is_first = not self._stop.is_set()  # a second one must not cut short the saving that the first one asked for
        self._stop.set()
        if is_first and self._interruptible:
            raise Interrupted

    def succeed(self, **result: Any) -> None:
        """Leave the result. Raises DiskFull where there is no room for it."""
        self._finish({"status": "succeeded", **result})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            with suppress(OSError):  # the log may lie on the same disk
                traceback.print_exc()
            error = DiskFull(f"No space left on the platform's disk. {MAKE_ROOM}")
        try:
            if isinstance(error, ChildError):
                self._finish({"status": "failed", "code": error.code, "message": error.message})
            elif isinstance(error, Interrupted):
                self._finish({"status": "interrupted"})
            elif error is not None:
                return False  # a bug: the traceback goes to the log, and the supervisor reports the exit status
        except DiskFull:
            _drop_unwritten_output()
            sys.exit(EXIT_DISK_FULL)
        return True

    def _finish(self, result: dict[str, Any]) -> None:
        if not self._finished:
            content = json.dumps(_finite(result), ensure_ascii=False, indent=1).encode()
            with room_for("the result", len(content), self.folder):
                write_whole(self.folder / "result.json", content)
            self._finished = True


@contextmanager
def room_for(what: str, size_bytes: int, folder: Path) -> Iterator[None]:
    """Within this a disk without space raises DiskFull, which says how much `what` needs and how much is left."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        left = shutil.disk_usage(folder).free
        raise DiskFull(
            f"No space left on the platform's disk for {what}: {size_bytes:,} bytes needed, {left:,} left. {MAKE_ROOM}"
        ) from error


def _drop_unwritten_output() -> None:
    """Where a standard stream cannot be flushed at the end, Python makes the exit status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is either absent (or as it was) or whole, whatever dies meanwhile."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames within `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(value: Any) -> Any:
    """Strict JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
