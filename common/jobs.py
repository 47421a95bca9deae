"""Durable jobs: the row is the job, the queue is a doorbell.

A transition is one compare-and-set UPDATE together with its events; a terminal state is never left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, Self
from uuid import UUID, uuid4

from django.apps import apps
from django.db import models, transaction
from django.db.models import F, Q
from django.db.models.functions import Greatest, Now
from django.db.models.lookups import GreaterThan

from common.clock import ServerClock, ServerStart
from common.events import Event, JobEvent
from common.tenancy import TenantQuerySet

LEASE = timedelta(seconds=60)
HEARTBEAT_S = 10.0
RENEWAL_GRACE = timedelta(seconds=30)  # some heartbeats after a start of the database
MAX_UNPRODUCTIVE_ATTEMPTS = 3
REQUEUE_DELAY = timedelta(seconds=5)


class JobStatus(models.TextChoices):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ENDED = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class JobQuerySet(TenantQuerySet):
    def queued(self) -> Self:
        return self.filter(status=JobStatus.QUEUED)

    def due(self) -> Self:
        """Those that could be begun now: an organization that is about to be deleted has none."""
        return self.queued().filter(due_at__lte=ServerClock(), organization__closes_at=None)

    def held(self, lease: Lease) -> Self:
        """The job while this lease holds it: nothing, once another attempt has begun or it has ended."""
        return self.filter(pk=lease.job_id, fence=lease.fence, status=JobStatus.RUNNING)

    def lease_ran_out(self) -> Self:
        """Running jobs whose worker was not heard of for a lease.

        While the database is down nobody can renew, so after its start the holders get some heartbeats' time.
        """
        return self.filter(
            GreaterThan(ServerClock(), ServerStart() + RENEWAL_GRACE),
            status=JobStatus.RUNNING,
            lease_until__lt=ServerClock(),
        )

    def ended_before(self, age: timedelta) -> Self:
        return self.filter(status__in=ENDED, finished_at__lt=ServerClock() - age)

    @transaction.atomic
    def advance(self, events: Sequence[Event], **changes: Any) -> Any | None:
        """Compare and set: change the one job that this QuerySet is filtered to, and append `events` to its log.

        Returns the changed job, or None where it is no longer in the state that the filter names. A change to a
        terminal status calls the job's `ended()` in the same transaction.
        """
        job_id = self.values_list("pk", flat=True).first()
        changed = job_id is not None and self.filter(pk=job_id).update(
            last_sequence=F("last_sequence") + len(events), **changes
        )
        if not changed:
            return None
        job = self.model._default_manager.get(pk=job_id)
        job.event_model.append(job, events)
        if job.status in ENDED and "status" in changes:
            job.ended()
        return job

    def move(self, status: JobStatus, *, reason: str | None = None, **changes: Any) -> Any | None:
        """`advance` to another status, with its event."""
        if status in ENDED:
            changes |= {"finished_at": ServerClock(), "lease_owner": "", "lease_until": None, "process": None}
        return self.advance(
            [Event("StatusChanged", {"status": status.value, "reason": reason})], status=status, **changes
        )


class Job(models.Model):
    """What every job has: state, the lease of who works on it, and the end of its event log."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    created_by = models.ForeignKey("accounts.User", null=True, on_delete=models.SET_NULL, related_name="+")
    status = models.CharField(max_length=9, choices=JobStatus.choices, default=JobStatus.QUEUED)
    due_at = models.DateTimeField(db_default=Now(), help_text="Not claimed before: a requeued job waits a little.")
    attempt = models.PositiveIntegerField(default=0, help_text="How often a worker has begun it.")
    unproductive_attempts = models.PositiveIntegerField(default=0, help_text="Attempts in a row that left nothing.")
    fence = models.BigIntegerField(default=0, help_text="Counts claims; a write with an older one changes nothing.")
    lease_owner = models.CharField(max_length=200, blank=True, default="")
    lease_until = models.DateTimeField(null=True)
    process = models.JSONField(null=True, help_text="Host, process group, and start time of the child at work.")
    cancel_requested_at = models.DateTimeField(null=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=60, null=True)
    error_message = models.TextField(null=True)
    last_sequence = models.BigIntegerField(default=0)
    events_offset = models.BigIntegerField(
        default=0, help_text="Bytes of the present attempt's events.jsonl that are in the log."
    )

    queue: ClassVar[str]
    event_model: ClassVar[type[JobEvent]]
    productive_kinds: ClassVar[frozenset[str]] = frozenset()
    """Events that prove progress across attempts."""

    objects = JobQuerySet.as_manager()

    class Meta:
        abstract = True
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["organization", "due_at"], condition=Q(status="QUEUED"), name="%(class)s_queued"),
            models.Index(
                fields=["organization", "lease_until"], condition=Q(status="RUNNING"), name="%(class)s_running"
            ),
            models.Index(fields=["organization", "-created_at", "-id"], name="%(class)s_newest"),
        ]

    def __str__(self) -> str:
        return f"{self._meta.verbose_name} {self.pk}"

    @classmethod
    def running_cap(cls) -> int:
        """How many jobs of this kind one organization may have running."""
        raise NotImplementedError

    @classmethod
    def follows_from(cls, events: list[dict[str, Any]]) -> dict[str, Any]:
        """The fields that change with the events that its child has told, oldest first."""
        return {}

    def how_far(self) -> str:
        """How far the present attempt has come, for an operator, where the row says it."""
        return ""

    @property
    def artefacts(self) -> str:
        """The storage prefix of what its attempts store, each below its own fence."""
        raise NotImplementedError

    def keeps(self) -> set[str]:
        """Which folders below `artefacts` stay once it has ended."""
        return {f"{self.fence:04d}"} if self.status == JobStatus.SUCCEEDED else set()

    def ended(self) -> None:
        """Called inside the terminal transition, whoever makes it."""

    def operated(self, verb: str, actor: str) -> None:
        """Called where an operator has cancelled or requeued it, in the same transaction."""

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED

    def created(self) -> None:
        """Write the first event of a job that this transaction has inserted: nobody else knows it, so nothing is compared."""
        self.last_sequence = 1
        self.save(update_fields=["last_sequence"])
        self.event_model.append(self, [Event("StatusChanged", {"status": self.status, "reason": None})])


def job_models() -> list[type[Job]]:
    return [model for model in apps.get_models() if issubclass(model, Job)]


def request_cancel(job: Job) -> Job:
    """Cancel a queued job at once; ask the supervisor of a running one to stop it. An ended one stays as it ended.

    The request is recorded before anything else: a job that is requeued or claimed at this moment carries it along.
    """
    jobs = type(job).objects.filter(pk=job.pk)
    jobs.exclude(status__in=ENDED).filter(cancel_requested_at=None).update(cancel_requested_at=ServerClock())
    jobs.queued().move(JobStatus.CANCELLED)
    changed: Job = jobs.get()
    return changed


@dataclass(frozen=True)
class Lease:
    """The right to work on one job until it runs out: each write carries the fence."""

    model: type[Job]
    job_id: UUID
    organization_id: UUID
    fence: int
    attempt: int


@transaction.atomic
def requeue(jobs: JobQuerySet, reason: str) -> Any | None:
    """Put a job whose attempt was lost back into the queue; `jobs` is filtered to it, and to the lost attempt.

    One that was to be cancelled ends as CANCELLED, and one that left nothing in three attempts in a row as POISON.
    Returns the changed job, or None where `jobs` names none.
    """
    job = jobs.select_for_update().first()  # a cancel waits, and then finds it queued
    is_poison = job is not None and job.unproductive_attempts >= MAX_UNPRODUCTIVE_ATTEMPTS
    if job is not None and is_poison and job.cancel_requested_at is None:
        message = f"Three attempts in a row ended without progress. {reason}"
        return jobs.move(JobStatus.FAILED, error_code="POISON", error_message=message)
    return take_back(jobs, reason, due_at=ServerClock() + REQUEUE_DELAY)


@transaction.atomic
def take_back(jobs: JobQuerySet, reason: str, **changes: Any) -> Any | None:
    """Put a running job into the queue again; one that was to be cancelled ends as CANCELLED.

    Returns the changed job, or None where `jobs` names no running one. Its worker's writes are refused from then on.
    """
    running = jobs.filter(status=JobStatus.RUNNING)
    job = running.select_for_update().first()
    if job is None:
        return None
    if job.cancel_requested_at is not None:
        return running.move(JobStatus.CANCELLED)
    nobody = {"lease_owner": "", "lease_until": None, "process": None}
    return running.move(JobStatus.QUEUED, reason=reason, **{"due_at": ServerClock(), **nobody, **changes})


def at_no_cost() -> dict[str, Any]:
    """For `take_back`: the attempt was not the job's fault, and does not count."""
    return {"unproductive_attempts": Greatest(F("unproductive_attempts") - 1, 0)}
