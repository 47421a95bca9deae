"""The worker's side of a job: a child process does the heavy work while this process holds the lease.

The child (common/child.py) reads run.json, appends to events.jsonl, and leaves result.json; nothing else passes between
the two but a byte in a pipe at each renewed lease. A supervisor that dies, or loses its lease, takes the child with it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from django.conf import settings
from django.db import OperationalError, close_old_connections, connection

from common.child import LEASE_FD, write_whole
from common.claims import claim
from common.events import Event
from common.jobs import ENDED, HEARTBEAT_S, LEASE, MAX_UNPRODUCTIVE_ATTEMPTS, Job, JobStatus, Lease, ServerClock
from common.tenancy import organizations_scope

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.2
STOP_GRACE_S = 30.0
REQUEUE_DELAY = timedelta(seconds=5)


class LeaseLost(Exception):
    """Another attempt has begun, or the job has ended: nothing of this one may be written any more."""


class Refused(Exception):
    """The job cannot be carried out, and trying again would not help: a code, and a sentence for whoever asked."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


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
    project: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda events: {}  # fields that follow from events
    productive_kinds: frozenset[str] = frozenset()  # events that prove progress across attempts
    environment: dict[str, str] = field(default_factory=dict)


def work_through(model: type[Job], prepare: Callable[[Any, Lease, Path], Work]) -> None:
    """Claim and carry out jobs of `model` until none is due: what a worker does when the bell rings.

    On SIGTERM the child saves and leaves, the job goes back to the queue, and this process ends.
    """
    owner = f"{socket.gethostname()}:{os.getpid()}"
    with _sigterm_noted() as stop:
        while not stop and (lease := claim(model, owner)):
            try:
                _Attempt(lease, stop).run(prepare)
            except LeaseLost:
                logger.warning("Lost the lease of %s %s (attempt %d).", model.__name__, lease.job_id, lease.attempt)


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


def attempt_folder(lease: Lease) -> Path:
    return Path(settings.ATTEMPTS_ROOT) / str(lease.job_id) / f"{lease.fence:04d}"


class _Attempt:
    """One claimed job: its folder, its child, its lease."""

    def __init__(self, lease: Lease, stop: list[int]) -> None:
        self.lease, self.stop = lease, stop
        self.folder = attempt_folder(lease)
        self.offset = 0
        self.cancelled = False
        self.renewed = time.monotonic()

    def run(self, prepare: Callable[[Any, Lease, Path], Work]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._scope():
                job = self._jobs().select_related().get()
            with self._lease_kept():
                self.work = prepare(job, self.lease, self.folder)
            code = self._supervise_child()
            self._conclude(code, self._result())
            self._tidy()
        except (LeaseLost, OperationalError):
            raise
        except Refused as refusal:
            self._move(JobStatus.FAILED, error_code=refusal.code, error_message=refusal.message)
            self._tidy()
        except Exception:  # a bug of ours must not leave the job to its lease: it is tried again, at most three times
            logger.exception(
                "Attempt %d at %s %s broke.", self.lease.attempt, self.lease.model.__name__, self.lease.job_id
            )
            self._try_again("The platform failed to carry this out; its operators find the reason in the log.")

    # ------------------------------------------------------------------------------------------ the child

    def _supervise_child(self) -> int:
        write_whole(self.folder / "run.json", json.dumps(self.work.orders, indent=1).encode())
        reader, writer = os.pipe()
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
        os.close(reader)
        try:
            self._remember_process(child)
            self._watch(child, writer)
        finally:
            os.close(writer)
            kill_group(child.pid)
            child.wait()
        self._forward_events()
        return child.returncode

    def _watch(self, child: subprocess.Popen[bytes], writer: int) -> None:
        asked_to_stop_at: float | None = None
        next_heartbeat = next_look = 0.0
        while True:
            try:
                child.wait(LOOK_EVERY_S)
                return
            except subprocess.TimeoutExpired:
                now = time.monotonic()
            try:
                if now >= next_heartbeat:
                    self._renew()
                    with suppress(BrokenPipeError):  # it has just ended; the next look finds out how
                        os.write(writer, b".")
                    next_heartbeat = now + HEARTBEAT_S
                if now >= next_look:
                    self._forward_events()
                    self._look_for_cancel()
                    next_look = now + 2 * LOOK_EVERY_S
            except OperationalError as error:
                # the child steps on; without a renewed lease the pipe falls silent, and it stops by itself in time
                logger.warning(
                    "The database is away (%s); attempt %d goes on.", str(error).splitlines()[0], self.lease.attempt
                )
                close_old_connections()
                next_look = next_heartbeat = now + 1
                if now - self.renewed > LEASE.total_seconds():
                    raise LeaseLost from error
            if asked_to_stop_at is None and (self.stop or self.cancelled):
                child.terminate()
                asked_to_stop_at = now
            elif asked_to_stop_at is not None and now - asked_to_stop_at > STOP_GRACE_S:
                return  # the caller kills what is left

    def _last_words(self) -> str:
        return (self.folder / "child.log").read_text(errors="replace")[-4000:]

    def _result(self) -> dict[str, Any] | None:
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    # ------------------------------------------------------------------------------------------ the lease

    def _jobs(self) -> Any:
        return self.lease.model.objects.held(self.lease)

    def _scope(self) -> Any:
        return organizations_scope([self.lease.organization_id])

    def _renew(self) -> None:
        with self._scope():
            if not self._jobs().update(lease_until=ServerClock() + LEASE):
                raise LeaseLost
        self.renewed = time.monotonic()

    @contextmanager
    def _lease_kept(self) -> Iterator[None]:
        """Renew the lease from a thread while this one moves files, which may take longer than a lease lasts."""
        done, lost = threading.Event(), threading.Event()

        def keep() -> None:
            while not done.wait(HEARTBEAT_S) and not lost.is_set():
                try:
                    self._renew()
                except LeaseLost:
                    lost.set()
                except OperationalError as error:
                    logger.warning("The database is away (%s).", str(error).splitlines()[0])
                finally:
                    connection.close()

        thread = threading.Thread(target=keep, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if lost.is_set():
            raise LeaseLost

    def _remember_process(self, child: subprocess.Popen[bytes]) -> None:
        identity = {"host": socket.gethostname(), "pid": child.pid, "started": psutil.Process(child.pid).create_time()}
        with self._scope():
            if not self._jobs().update(process=identity):
                raise LeaseLost

    def _look_for_cancel(self) -> None:
        with self._scope():
            self.cancelled = self._jobs().exclude(cancel_requested_at=None).exists()

    def _forward_events(self) -> None:
        """Move what the child has appended since the last look into the job's log, whole lines only."""
        path = self.folder / "events.jsonl"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self.offset)
            lines = file.read().rpartition(b"\n")[0]
        if not lines:
            return
        events = [json.loads(line) for line in lines.split(b"\n")]
        changes = self.work.project(events)
        if any(event["kind"] in self.work.productive_kinds for event in events):
            changes["unproductive_attempts"] = 0
        rows = [Event(event.pop("kind"), data=event, at=event.pop("at")) for event in events]
        with self._scope():
            if self._jobs().advance(rows, **changes) is None:
                raise LeaseLost
        self.offset += len(lines) + 1

    # ------------------------------------------------------------------------------------------ the end

    def _conclude(self, code: int, result: dict[str, Any] | None) -> None:
        status = result and result["status"]
        if status == "succeeded":
            with self._lease_kept():
                stored = self.work.store(self.folder, result or {})
            self._succeed(stored)
        elif status == "failed" and result:
            self._move(JobStatus.FAILED, error_code=result["code"], error_message=result["message"])
        elif self.cancelled:
            self._move(JobStatus.CANCELLED)
        elif self.stop:
            self._give_back()
        else:
            logger.error(
                "%s %s ended with %s; its last words:\n%s",
                self.lease.model.__name__,
                self.lease.job_id,
                _how(code),
                self._last_words(),
            )
            self._try_again(f"Its process ended without a result ({_how(code)}).")

    def _succeed(self, result: dict[str, Any]) -> None:
        with self._scope():
            job = self._jobs().select_for_update().first()
            if job is None:
                raise LeaseLost
            self.work.succeeded(job, result)
            self._jobs().move(JobStatus.SUCCEEDED, error_code=None, error_message=None)

    def _tidy(self) -> None:
        """An ended job leaves no folder; one that goes on needs its checkpoints."""
        with self._scope():
            ended = self.lease.model.objects.filter(pk=self.lease.job_id, status__in=ENDED).exists()
        if ended:
            shutil.rmtree(self.folder.parent, ignore_errors=True)

    def _move(self, status: JobStatus, **changes: Any) -> None:
        with self._scope():
            if self._jobs().move(status, **changes) is None:
                raise LeaseLost

    def _give_back(self) -> None:
        """An orderly exit costs the job no attempt: a deployment is nobody's poison."""
        self._move(
            JobStatus.QUEUED,
            reason="The worker was asked to stop.",
            lease_owner="",
            lease_until=None,
            process=None,
            unproductive_attempts=0,
            due_at=ServerClock(),
        )

    def _try_again(self, reason: str) -> None:
        with self._scope():
            requeue(self._jobs(), reason)


def requeue(jobs: Any, reason: str) -> None:
    """Put a job whose attempt was lost back into the queue.

    One that was to be cancelled ends as CANCELLED, and one that left nothing in three attempts in a row as POISON.
    """
    if jobs.exclude(cancel_requested_at=None).move(JobStatus.CANCELLED) is not None:
        return
    poison = jobs.filter(unproductive_attempts__gte=MAX_UNPRODUCTIVE_ATTEMPTS)
    message = f"Three attempts in a row ended without progress. {reason}"
    if poison.move(JobStatus.FAILED, error_code="POISON", error_message=message) is None:
        nobody = {"lease_owner": "", "lease_until": None, "process": None}
        jobs.move(JobStatus.QUEUED, reason=reason, due_at=ServerClock() + REQUEUE_DELAY, **nobody)


def kill_group(pid: int) -> None:
    """Kill a process group, if there is one left."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
