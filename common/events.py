"""Each job's append-only event log: (job, sequence) is unique, and a reader's cursor is the last sequence it saw.

Sequences come from the job's row, so they become visible in order: a cursor never skips one.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from uuid import UUID

import redis
from django.db import models, transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from common.queues import connect

logger = logging.getLogger(__name__)

CHANNEL = "job-events"


@dataclass(frozen=True)
class Event:
    """One thing that happened to a job; `kind` is a type of the API that implements JobEvent, `data` its fields."""

    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    at: str | None = None


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
        first, now = job.last_sequence - len(events) + 1, timezone.now()
        of_job: dict[str, Any] = {"organization_id": job.organization_id, "job_id": job.pk}
        cls._default_manager.bulk_create(
            cls(
                **of_job,
                sequence=first + index,
                at=(event.at and parse_datetime(event.at)) or now,
                kind=event.kind,
                data=event.data,
            )
            for index, event in enumerate(events)
        )
        announce(job.pk)


def announce(job_id: UUID) -> None:
    """Tell whoever watches that there is more, after the commit; what there is, they read from the log."""
    transaction.on_commit(lambda: _publish(job_id), robust=True)


def _publish(job_id: UUID) -> None:
    try:
        _redis().publish(CHANNEL, str(job_id))
    except redis.RedisError:
        logger.warning("Watchers of %s will look again by themselves.", job_id, exc_info=True)


_connection: redis.Redis | None = None


def _redis() -> redis.Redis:
    """One client for the process; it reconnects by itself, and its pool is safe to share between threads and forks."""
    global _connection
    if _connection is None:
        _connection = connect()
    return _connection
