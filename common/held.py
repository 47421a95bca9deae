"""What a worker writes about the job it holds: each write carries the fence, and outlasts a database that is away."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from common.clock import ServerClock
from common.events import Event
from common.jobs import ENDED, LEASE, JobStatus, Lease, at_no_cost, requeue, take_back
from common.outages import AWAY, Patience
from common.tenancy import organizations_scope

logger = logging.getLogger(__name__)

STOPPING_PATIENCE_S = 15.0
PUT_OFF_BY = timedelta(seconds=30)


class LeaseLost(Exception):
    """Another attempt has begun, or the job has ended: nothing of this one may be written any more."""


class HeldJob:
    """The job of one lease. Each method raises LeaseLost once the lease is another's."""

    def __init__(self, lease: Lease, is_stopping: Callable[[], bool], events_offset: int = 0) -> None:
        """`events_offset` is how many bytes of the attempt's events are in the log already."""
        self.lease = lease
        self._offset = events_offset
        self._patience = Patience(is_stopping, STOPPING_PATIENCE_S)

    def load(self) -> Any:
        job: Any = None

        def read() -> None:
            nonlocal job
            job = self._rows().select_related().first()
            if job is None:
                raise LeaseLost

        self._surely(read)
        return job

    def renew(self, process: dict[str, Any] | None = None) -> None:
        """Make the lease last for its full time from now on. Raises one of AWAY where the database is.

        `process` says which process group to kill, should this worker be lost.
        """
        with self._scope():
            if not self._rows().update(lease_until=ServerClock() + LEASE, process=process):
                raise LeaseLost

    def is_cancelled(self) -> bool:
        """Whether somebody has asked for the job's end. Raises one of AWAY where the database is."""
        with self._scope():
            held = self._rows().values_list("cancel_requested_at").first()
        if held is None:
            raise LeaseLost
        return held[0] is not None

    def was_cancelled(self) -> bool:
        """`is_cancelled`, and wait for the database."""
        answers: list[bool] = []
        self._outlast(lambda: answers.append(self.is_cancelled()))
        return answers[-1]

    def forward_events(self, file: Path) -> None:
        """Move what the child has appended since the last look into the job's log, whole lines only.

        How far that went is committed with the events, so a commit whose answer was lost is not made twice.
        Raises one of AWAY where the database is.
        """
        lines = _whole_lines(file, self._offset)
        if not lines:
            return
        events = [json.loads(line) for line in lines.split(b"\n")]
        changes = self.lease.model.follows_from(events)
        if any(event["kind"] in self.lease.model.productive_kinds for event in events):
            changes["unproductive_attempts"] = 0
        rows = [Event(event.pop("kind"), age=_age(event.pop("at")), data=event) for event in events]
        offset = self._offset + len(lines) + 1
        with self._scope():
            moved = self._rows().filter(events_offset=self._offset).advance(rows, events_offset=offset, **changes)
            if moved is None:  # the answer to an earlier commit was lost, or the lease is
                in_log = self._rows().values_list("events_offset", flat=True).first()
                if in_log is None:
                    raise LeaseLost
                offset = in_log
        self._offset = offset

    def forward_last_events(self, file: Path) -> None:
        """`forward_events` of a child that has ended: this is the last chance, so wait for the database.

        Where the lease is another's there may be no file any more, so that is looked at, too.
        """

        def forward() -> None:
            self.forward_events(file)
            with self._scope():
                self._check_held()

        self._outlast(forward)

    # ------------------------------------------------------------------------------------------ the end

    def succeed(self, succeeded: Callable[[Any, dict[str, Any]], None], result: dict[str, Any]) -> None:
        """End the job as SUCCEEDED together with what `succeeded` writes; as CANCELLED, if that was asked for."""

        def write(job: Any) -> None:
            succeeded(job, dict(result))
            self._rows().move(JobStatus.SUCCEEDED, error_code=None, error_message=None)

        self._end_unless_cancelled(write)

    def fail(self, code: str, message: str) -> None:
        """End the job as FAILED; as CANCELLED, if that was asked for."""

        self._end_unless_cancelled(
            lambda job: self._rows().move(JobStatus.FAILED, error_code=code, error_message=message)
        )

    def cancel(self) -> None:
        def write() -> None:
            if self._rows().move(JobStatus.CANCELLED) is None:
                raise LeaseLost

        self._end(write)

    def give_back(self, reason: str) -> None:
        """An orderly exit costs the job no attempt: a deployment is nobody's poison."""

        def write() -> None:
            if take_back(self._rows(), reason, unproductive_attempts=0) is None:
                raise LeaseLost

        self._end(write)

    def put_off(self, reason: str) -> None:
        """This host cannot do it, and another one may: that costs the job no attempt."""

        def write() -> None:
            later = {"due_at": ServerClock() + PUT_OFF_BY, **at_no_cost()}
            if take_back(self._rows(), reason, **later) is None:
                raise LeaseLost

        self._end(write)

    def try_again(self, reason: str) -> None:
        def write() -> None:
            if requeue(self._rows(), reason) is None:
                raise LeaseLost

        self._end(write)

    def change(self, **changes: Any) -> None:
        """Of what is the job's own, while it is ours."""

        def write() -> None:
            if not self._rows().update(**changes):
                raise LeaseLost

        self._surely(write)

    def ended(self) -> Any | None:
        """The job, if it has ended, whoever ended it."""
        job: Any = None

        def read() -> None:
            nonlocal job
            job = self.lease.model.objects.filter(pk=self.lease.job_id, status__in=ENDED).first()

        self._surely(read)
        return job

    # ------------------------------------------------------------------------------------------

    def _rows(self) -> Any:
        return self.lease.model.objects.held(self.lease)

    def _check_held(self) -> None:
        if not self._rows().exists():
            raise LeaseLost

    def _scope(self) -> Any:
        return organizations_scope([self.lease.organization_id])

    def _end_unless_cancelled(self, otherwise: Callable[[Any], object]) -> None:
        """The job is held while that is decided: a cancel that was acknowledged before is seen, and a later one finds the end."""

        def write() -> None:
            job = self._rows().select_for_update().first()
            if job is None:
                raise LeaseLost
            if job.cancel_requested_at is not None:
                self._rows().move(JobStatus.CANCELLED)
            else:
                otherwise(job)

        self._end(write)

    def _end(self, write: Callable[[], None]) -> None:
        """Hand the job on for good.

        Where a commit's answer was lost, the repeat finds the job out of our hands, and that is what was wanted.
        """
        try:
            self._surely(write)
        except LeaseLost:
            with self._scope():
                of_this_attempt = self.lease.model.objects.filter(pk=self.lease.job_id, fence=self.lease.fence)
                out_of_our_hands = of_this_attempt.exclude(status=JobStatus.RUNNING).exists()
            if not out_of_our_hands:
                raise

    def _surely(self, action: Callable[[], None]) -> None:
        def in_scope() -> None:
            with self._scope():
                action()

        self._outlast(in_scope)

    def _outlast(self, action: Callable[[], None]) -> None:
        """Repeat `action` until the database has answered."""
        while True:
            try:
                action()
            except AWAY as error:
                self._patience.wait(error)
            else:
                self._patience.over()
                return


def _age(at: str) -> timedelta:
    """How long ago the child wrote this, which has the clock that this process has."""
    return max(timedelta(), datetime.now(UTC) - datetime.fromisoformat(at))


def _whole_lines(file: Path, offset: int) -> bytes:
    if not file.exists():
        return b""
    with file.open("rb") as content:
        content.seek(offset)
        return content.read().rpartition(b"\n")[0]
