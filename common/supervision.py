"""The worker's side of a job: a child process does the heavy work while this process holds the lease.

The child (common/child.py) reads run.json, appends to events.jsonl, and leaves result.json; nothing else passes between
the two but a byte in a pipe at each renewed lease. A supervisor that dies, or loses its lease, takes the child with it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from django.conf import settings
from django.db import close_old_connections

from common import blobs
from common.child import EXIT_DISK_FULL, LEASE_FD, NO_SPACE, write_whole
from common.claims import claim
from common.cluster import busy
from common.held import HeldJob, LeaseLost
from common.jobs import HEARTBEAT_S, Job, Lease
from common.leftovers import EVENTS, attempt_folder, kill_group, remove_what_it_left
from common.memory import GivingBack
from common.moving import CalledAway, renewed
from common.outages import AWAY, RETRY_EVERY_S, Patience, nobody_listens, told
from common.presence import present

logger = logging.getLogger(__name__)
_give_back = GivingBack()  # one for a process, which hears many bells

T = TypeVar("T")

LOOK_EVERY_S = 0.2
PROMPT_S = 4.0
STOP_GRACE_S = 20.0
STORE_PATIENCE_S = 15.0  # what is almost done may be ended before the worker leaves
NICENESS = 5  # of a child beside its worker: where there are too few cores, requests come before jobs
EXIT_LEASE_LOST = 76
EXIT_HOST_BROKEN = 79
BROKEN_PAUSE_S = 5.0
ASKED_TO_STOP = "The worker was asked to stop."
GAVE_WAY = "Something that somebody waits for came first."
CANNOT_BEGIN = "The worker's host could not begin it; its operators find the reason in the log."
DISK_FULL = "The platform's disk is full. Its operators have to make room; then start this again."


class Refused(Exception):
    """The job cannot be carried out, and trying again would not help: a code, and a sentence for whoever asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class HostBroken(Exception):
    """This host cannot even begin a job. That is not the job's fault, and would be the next one's, too."""


@dataclass(frozen=True)
class Work:
    """What a job needs a child for: the module to run, its orders, and what its success changes in the database."""

    module: str
    orders: dict[str, Any]
    succeeded: Callable[
        [Any, dict[str, Any]], None
    ]  # (job, result), in the terminal transition, inside the tenant's scope
    store: Callable[[Path, dict[str, Any]], dict[str, Any]] = lambda folder, result: (
        result
    )  # before it, outside any transaction
    keep: Callable[[Path], dict[str, Any]] = lambda folder: {}
    """Called before it ends, well or badly: stores what somebody may want to go on from. Returns changes of the job's row."""
    environment: dict[str, str] = field(default_factory=dict)
    gives_way: Callable[[], bool] = lambda: False
    """Whether the worker is needed for something else: then the child is ended, and the job goes back to the queue."""
    forbidden: Callable[[], Refused | None] = lambda: None
    """Why it must not go on, where that is so: then the child saves and leaves, and the job fails with that."""


def work_through(model: type[Job], prepare: Callable[[Any, Lease, Path], Work], most: float = math.inf) -> int:
    """Claim and carry out jobs of `model` until none is due, or it were `most`: what a worker does when the bell rings.
    Returns how many it were.

    On SIGTERM the child saves and leaves, the job goes back to the queue, and this process ends. It ends as well where
    it lost a lease: it was stopped for a minute or cut off, and nobody knows what else it takes for true.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}"
    carried_out = 0
    with _sigterm_noted() as stop, busy():
        try:
            while not stop and carried_out < most and (lease := claim(model, owner)):
                carried_out += 1
                try:
                    _Attempt(lease, stop).run(prepare)
                except HostBroken:
                    _pause(stop)
                    sys.exit(EXIT_HOST_BROKEN)
                except LeaseLost:
                    logger.warning("Lost the lease of %s %s (attempt %d).", model.__name__, lease.job_id, lease.attempt)
                    sys.exit(EXIT_LEASE_LOST)
                _give_back()
        except AWAY as error:  # the keeper rings again once it is back
            logger.warning("%s", told(error))
            close_old_connections()
            return 0
    return carried_out


@contextmanager
def _needing_the_host() -> Iterator[None]:
    """Within this an error of the file system or of the process table is the host's; a full disk is told as such."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise HostBroken from error


def _pause(stop: list[int]) -> None:
    """The worker that comes after this one will break in the same way: others should have a turn before."""
    over_at = time.monotonic() + BROKEN_PAUSE_S
    while not stop and time.monotonic() < over_at:
        time.sleep(LOOK_EVERY_S)


@contextmanager
def _sigterm_noted() -> Iterator[list[int]]:
    """A list that SIGTERM fills; leaving the block hands the signal on to whoever handled it before."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    previous = signal.signal(signal.SIGTERM, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, previous)
        if received:
            os.kill(os.getpid(), signal.SIGTERM)


class _Attempt:
    """One claimed job, from its preparation to its end: the folder, the child, and what is told to the job's row."""

    def __init__(self, lease: Lease, stop: list[int]) -> None:
        self.lease, self.stop = lease, stop
        self.job = HeldJob(lease, lambda: bool(stop))
        self.folder = attempt_folder(lease.job_id, lease.fence)
        self.stores_below: str | None = None
        self.cancelled = self.gives_way = False
        self.forbidden: Refused | None = None

    def run(self, prepare: Callable[[Any, Lease, Path], Work]) -> None:
        with ExitStack() as until_told:
            try:
                with _needing_the_host():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    until_told.enter_context(present(self.folder))
                self._carry_out(prepare)
            except LeaseLost:
                self._remove_what_it_stored()
                raise
            except AWAY:
                raise
            except HostBroken:
                logger.exception("This host cannot begin any job; it should be looked at.")
                self.job.put_off(CANNOT_BEGIN)
                raise
            except Refused as refusal:
                self.job.fail(refusal.code, refusal.message)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    self._broke()
                else:
                    logger.exception("The disk is full.")
                    self.job.fail("DISK_FULL", DISK_FULL)
            except Exception:
                self._broke()
        self._tidy()

    def _carry_out(self, prepare: Callable[[Any, Lease, Path], Work]) -> None:
        job = self.job.load()
        self.stores_below = f"{job.artefacts}/{self.lease.fence:04d}"
        try:
            with self._renewed(patience_s=0.0):
                self.work = self._prepared(job, prepare)
            if not self.job.was_cancelled():
                self._see_through()
                return
        except CalledAway:
            if not self.job.was_cancelled():
                self.job.give_back(ASKED_TO_STOP)
                return
        self.job.cancel()

    def _see_through(self) -> None:
        self.forbidden = self._surely_asked(self.work.forbidden)
        if self.forbidden:
            self._keep()
            self.job.fail(self.forbidden.code, self.forbidden.message)
        else:
            code = self._supervise_child()
            self._conclude(code, self._result())

    def _renewed(self, patience_s: float) -> AbstractContextManager[None]:
        return renewed(self.job, lambda: bool(self.stop), patience_s)

    def _prepared(self, job: Any, prepare: Callable[[Any, Lease, Path], Work]) -> Work:
        return self._surely_asked(lambda: prepare(job, self.lease, self.folder))

    def _surely_asked(self, question: Callable[[], T]) -> T:
        """The answer, once the database is there for it."""
        patience = Patience(lambda: bool(self.stop))
        while True:
            try:
                return question()
            except AWAY as error:
                patience.wait(error)

    def _broke(self) -> None:
        """A bug of ours must not leave the job to its lease: it is tried again, at most three times."""
        logger.exception("Attempt %d at %s %s broke.", self.lease.attempt, self.lease.model.__name__, self.lease.job_id)
        self.job.try_again("The platform failed to carry this out; its operators find the reason in the log.")

    # ------------------------------------------------------------------------------------------ the child

    def _supervise_child(self) -> int:
        with _needing_the_host():
            write_whole(self.folder / "run.json", json.dumps(self.work.orders, indent=1).encode())
            child, writer = self._start_child()
        try:
            self._watch(child, writer)
        finally:
            os.close(writer)
            kill_group(child.pid)
            child.wait()
        self.job.forward_last_events(self._events)
        return child.returncode

    def _start_child(self) -> tuple[subprocess.Popen[bytes], int]:
        """The child, and the pipe's end through which it is fed."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            with (self.folder / "child.log").open("ab") as log:
                child = subprocess.Popen(
                    [sys.executable, "-m", self.work.module, str(self.folder)],
                    cwd=settings.BASE_DIR,
                    env={**os.environ, **self.work.environment, LEASE_FD: str(reader)},
                    pass_fds=[reader],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, child.pid, min(own + NICENESS, 19))
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        return child, writer

    def _watch(self, child: subprocess.Popen[bytes], writer: int) -> None:
        """Return when the child has ended, or has gone on for too long after it was asked to stop."""
        patience, process = Patience(), {"host": socket.gethostname(), "pid": child.pid}
        asked_to_stop_at: float | None = None
        next_heartbeat = next_look = 0.0
        while _runs(child, LOOK_EVERY_S):
            now = time.monotonic()
            try:
                if now >= next_heartbeat:
                    self.job.renew(process)
                    if time.monotonic() - now < PROMPT_S:  # a late byte would outlast the lease
                        _feed(writer)
                    next_heartbeat = now + HEARTBEAT_S
                if now >= next_look:
                    self.job.forward_events(self._events)
                    self.cancelled = self.job.is_cancelled()
                    self.gives_way = self.gives_way or self.work.gives_way()
                    self.forbidden = self.forbidden or self.work.forbidden()
                    next_look = now + 2 * LOOK_EVERY_S
                    patience.over()
            except AWAY as error:
                patience.note(error)
                if nobody_listens(error):  # then nobody can claim the job, and the child may go on
                    _feed(writer)
                next_look = next_heartbeat = now + RETRY_EVERY_S
            if asked_to_stop_at is None and (self.stop or self.cancelled or self.gives_way or self.forbidden):
                child.terminate()
                asked_to_stop_at = now
            elif asked_to_stop_at is not None and now - asked_to_stop_at > STOP_GRACE_S:
                return  # the caller kills what is left

    @property
    def _events(self) -> Path:
        return self.folder / EVENTS

    def _last_words(self) -> str:
        return (self.folder / "child.log").read_text(errors="replace")[-4000:]

    def _result(self) -> dict[str, Any] | None:
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    # ------------------------------------------------------------------------------------------ the end

    def _conclude(self, code: int, result: dict[str, Any] | None) -> None:
        status = result and result["status"]
        goes_on = self.stop or self.gives_way or status == "interrupted"
        if status in ("succeeded", "failed") or self.cancelled or self.forbidden or not goes_on:
            self._keep()
        if status == "succeeded":
            with self._renewed(STORE_PATIENCE_S):
                stored = self.work.store(self.folder, result or {})
            self.job.succeed(self.work.succeeded, stored)
        elif status == "failed" and result:
            self.job.fail(result["code"], result["message"])
        elif self.cancelled:
            self.job.cancel()
        elif self.forbidden:
            self.job.fail(self.forbidden.code, self.forbidden.message)
        elif self.stop:
            self.job.give_back(ASKED_TO_STOP)
        elif self.gives_way:
            self.job.give_back(GAVE_WAY)
        elif status == "interrupted":  # it heard nothing for most of a lease
            self.job.give_back("The database did not answer for most of a lease.")
        elif code == EXIT_DISK_FULL:
            self.job.fail("DISK_FULL", DISK_FULL)
        else:
            logger.error(
                "%s %s ended with %s; its last words:\n%s",
                self.lease.model.__name__,
                self.lease.job_id,
                _how(code),
                self._last_words(),
            )
            self.job.try_again(f"Its process ended without a result ({_how(code)}).")

    def _keep(self) -> None:
        """How the job ends does not depend on it."""
        try:
            with self._renewed(STORE_PATIENCE_S):
                changes = self.work.keep(self.folder)
        except (*AWAY, CalledAway, LeaseLost):
            raise
        except Exception:
            logger.exception("What %s %s came to could not be kept.", self.lease.model.__name__, self.lease.job_id)
            return
        if changes:
            self.job.change(**changes)

    def _remove_what_it_stored(self) -> None:
        """Whoever has the job now knows nothing of it."""
        if self.stores_below is not None:
            try:
                blobs.delete_folder(self.stores_below)
            except Exception:  # the keeper tidies, too, once the job has ended
                logger.exception("What was stored below %s could not be removed.", self.stores_below)

    def _tidy(self) -> None:
        """An ended job leaves no folder and no orphans; one that goes on needs its checkpoints."""
        job = self.job.ended()
        if job is not None:
            remove_what_it_left(job)


def _runs(child: subprocess.Popen[bytes], wait_s: float) -> bool:
    try:
        child.wait(wait_s)
        return False
    except subprocess.TimeoutExpired:
        return True


def _feed(pipe: int) -> None:
    """The byte that lets the child go on."""
    with suppress(BrokenPipeError, BlockingIOError):  # it has just ended, or has bytes enough
        os.write(pipe, b".")


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
