"""Each job's append-only event log: (job, sequence) is unique, and a reader's cursor is the last sequence it saw.

Sequences come from the job's row, so they become visible in order: a cursor never skips one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, Self
from uuid import UUID

import redis
from django.db import models, transaction

from common.clock import ServerClock
from common.queues import connect, tell

CHANNEL = "job-events"


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job; `kind` is a type of the API that implements JobEvent, `data` its fields."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    age: timedelta = timedelta()  # a worker tells what its child has done some time after it happened


class JobEvent(models.Model):
    """A row of the log. Subclasses add `job`."""

    id = models.BigAutoField(primary_key=True)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="+")
    sequence = models.BigIntegerField()
    at = models.DateTimeField()
    kind = models.CharField(max_length=40)
    data = models.JSONField()

    class Meta:
        abstract = True
        ordering = ["sequence"]
        constraints = [models.UniqueConstraint(fields=["job", "sequence"], name="%(class)s_sequence")]

    def __str__(self) -> str:
        return f"{self.sequence} {self.kind}"

    @classmethod
    def page(cls, job: Any, after: int, limit: int) -> list[Self]:
        """Up to `limit` events of `job` after sequence `after`, in order."""
        log: Any = cls._default_manager
        return list(log.filter(job_id=job.pk, sequence__gt=after).order_by("sequence")[:limit])

    @classmethod
    def append(cls, job: Any, events: Sequence[Event]) -> None:
        """Insert events that the job's `last_sequence` has been moved on for, in the same transaction."""
        if not events:
            return
        first = job.last_sequence - len(events) + 1
        of_job: dict[str, Any] = {"organization_id": job.organization_id, "job_id": job.pk}
        cls._default_manager.bulk_create(
            cls(
                **of_job,
                sequence=first + index,
                at=ServerClock() - event.age,
                kind=event.kind,
                data=event.data,
            )
            for index, event in enumerate(events)
        )
        announce(job.pk)


def announce(job_id: UUID) -> None:
    """Tell whoever watches that there is more, after the commit; what there is, they read from the log."""
    publish = partial(_publish, job_id)
    transaction.on_commit(lambda: tell(publish, otherwise="watchers look again by themselves"), robust=True)


def _publish(job_id: UUID) -> None:
    _redis().publish(CHANNEL, str(job_id))


_connection: redis.Redis | None = None


def _redis() -> redis.Redis:
    """One client for the process; it reconnects by itself, and its pool is safe to share between threads and forks."""
    global _connection
    if _connection is None:
        _connection = connect()
    return _connection
