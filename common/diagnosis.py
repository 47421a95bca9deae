"""Why a job is where it is: what it waits for, how far it has come, or what it is stuck at.

`manage.py jobs` and the admin say the same, since both ask here. Times are compared on PostgreSQL's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import redis
from django.db import connection
from django.db.models import Case, CharField, Count, Exists, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Coalesce

from common.clock import ServerClock
from common.cluster import FROZEN_AFTER_S, clusters
from common.jobs import ENDED, Job, JobStatus, job_models
from common.keeper import ADVISORY_LOCK
from common.queues import check, rings_unheard
from common.text import one_line, spelled

CLAIMED_WITHIN = timedelta(seconds=30)
STOPPED_WITHIN = timedelta(seconds=40)
HEARD_WITHIN = timedelta(minutes=10)


class Cause(StrEnum):
    """Why a job has the status that it has: of those that hold, the first."""

    ENDED = "ENDED"
    LEASE_RAN_OUT = "LEASE_RAN_OUT"
    STOPPING = "STOPPING"
    SILENT = "SILENT"
    AT_WORK = "AT_WORK"
    NOT_DUE = "NOT_DUE"
    CLOSING = "CLOSING"
    CAPPED = "CAPPED"
    NO_REDIS = "NO_REDIS"
    NO_WORKER = "NO_WORKER"
    NO_ECHO = "NO_ECHO"
    ALL_BUSY = "ALL_BUSY"
    NEXT = "NEXT"


@dataclass(frozen=True)
class Workers:
    """Those of one queue on all hosts, as their clusters told within the last seconds."""

    count: int | None  # None: Redis is away, and nobody can tell
    silent_s: float | None  # for how long no cluster with a free worker has echoed; None: one has lately
    rings_unheard: int

    @classmethod
    def of(cls, queue: str) -> Workers:
        try:
            check()
            alive = clusters(queue)
        except redis.RedisError:
            return cls(count=None, silent_s=None, rings_unheard=0)
        silences = [cluster["silent_s"] or 0.0 for cluster in alive if cluster["busy"] < cluster["workers"]]
        silent_s = min(silences, default=0.0)
        return cls(
            count=sum(cluster["workers"] for cluster in alive),
            silent_s=silent_s if silent_s > FROZEN_AFTER_S else None,
            rings_unheard=rings_unheard(queue) or 0,
        )


@dataclass(frozen=True)
class Counts:
    queued: int
    running: int
    stuck: int


class Diagnosis:
    """The jobs of one kind at this moment. To be made and used in one scope; it sees the jobs that the scope sees."""

    def __init__(self, model: type[Job]) -> None:
        self.model = model
        self.workers = Workers.of(model.queue)
        held = {"status": JobStatus.RUNNING, "lease_until__gte": ServerClock()}
        of_queue = [each for each in job_models() if each.queue == model.queue]  # they share its workers
        self.busy = sum(each.objects.filter(**held).count() for each in of_queue)

    def jobs(self) -> QuerySet[Any]:
        """All, with what `why` needs: cause, is_stuck, since, last_event_at, last_event_kind, last_reason, now."""
        log = self._log().filter(job_id=OuterRef("pk"))
        last = log.filter(sequence=OuterRef("last_sequence"))
        changes = log.filter(kind="StatusChanged").order_by("-sequence")
        return self._examined(self.model.objects.all()).annotate(
            now=ServerClock(),
            since=Coalesce("finished_at", Subquery(changes.values("at")[:1]), "created_at"),
            last_event_at=Subquery(last.values("at")),
            last_event_kind=Subquery(last.values("kind")),
            last_reason=Subquery(last.values("data__reason")),
        )

    def stuck(self) -> QuerySet[Any]:
        return self._unfinished().filter(is_stuck=True)

    def counts(self) -> Counts:
        return Counts(
            **self._unfinished().aggregate(
                queued=Count("pk", filter=Q(status=JobStatus.QUEUED)),
                running=Count("pk", filter=Q(status=JobStatus.RUNNING)),
                stuck=Count("pk", filter=Q(is_stuck=True)),
            )
        )

    def _unfinished(self) -> QuerySet[Any]:
        return self._examined(self.model.objects.exclude(status__in=ENDED))

    def _examined(self, jobs: QuerySet[Any]) -> QuerySet[Any]:
        """`jobs`, each with its cause and whether it is stuck."""
        now = ServerClock()
        waits_for_somebody = Q(cause__in=[Cause.NO_REDIS, Cause.NO_WORKER, Cause.NO_ECHO, Cause.NEXT])
        stuck = (
            Q(cause__in=[Cause.LEASE_RAN_OUT, Cause.SILENT])
            | Q(cause=Cause.STOPPING, cancel_requested_at__lt=now - STOPPED_WITHIN)
            | waits_for_somebody & Q(due_at__lt=now - CLAIMED_WITHIN)
        )
        return jobs.annotate(cause=self._cause()).annotate(is_stuck=Case(When(stuck, then=True), default=False))

    def _log(self) -> Any:
        return self.model.event_model._default_manager

    def _cause(self) -> Case:
        now = ServerClock()
        lately = self._log().filter(
            job_id=OuterRef("pk"), sequence=OuterRef("last_sequence"), at__gte=now - HEARD_WITHIN
        )
        running = Q(status=JobStatus.RUNNING)
        full = self.model.objects.filter(running).order_by().values("organization_id").annotate(running=Count("pk"))
        full = full.filter(running__gte=self.model.running_cap()).values("organization_id")
        choices = [
            (Q(status__in=ENDED), Cause.ENDED),
            (running & Q(lease_until__lt=now), Cause.LEASE_RAN_OUT),
            (running & Q(cancel_requested_at__isnull=False), Cause.STOPPING),
            (running & ~Q(Exists(lately)), Cause.SILENT),
            (running, Cause.AT_WORK),
            (Q(due_at__gt=now), Cause.NOT_DUE),
            (Q(organization__closes_at__isnull=False), Cause.CLOSING),
            (Q(organization_id__in=full), Cause.CAPPED),
        ]
        whens = [When(condition, then=Value(cause.value)) for condition, cause in choices]
        return Case(*whens, default=Value(self._cause_to_wait().value), output_field=CharField())

    def _cause_to_wait(self) -> Cause:
        """Of whatever is queued, due, and within its organization's cap."""
        if self.workers.count is None:
            return Cause.NO_REDIS
        if self.workers.count == 0:
            return Cause.NO_WORKER
        if self.busy >= self.workers.count:
            return Cause.ALL_BUSY
        return Cause.NO_ECHO if self.workers.silent_s is not None else Cause.NEXT

    def why(self, job: Any) -> str:
        """A sentence about a job of `jobs()`."""
        queue, lease = self.model.queue, job.lease_until and job.now - job.lease_until
        due = f"due {spelled(job.now - job.due_at)} ago"
        match Cause(job.cause):
            case Cause.ENDED:
                return one_line(f"{job.error_code}: {job.error_message}", 300) if job.error_code else ""
            case Cause.LEASE_RAN_OUT:
                return f"its lease ran out {spelled(lease)} ago; the keeper, if there is one, requeues it soon"
            case Cause.STOPPING:
                asked = f"cancel asked {spelled(job.now - job.cancel_requested_at)} ago"
                return f"{asked}; its worker does not hear" if job.is_stuck else f"{asked}; it may save for 30 s"
            case Cause.SILENT:
                said = job.last_event_at or job.since
                return f"has said nothing for {spelled(job.now - said)}; its worker renews the lease all the same"
            case Cause.AT_WORK:
                return _at_work(job)
            case Cause.NOT_DUE:
                return f"retried in {spelled(job.due_at - job.now)}: {job.last_reason or 'it has to wait'}"
            case Cause.CLOSING:
                return "its organization is about to be deleted, and nothing in it is begun"
            case Cause.CAPPED:
                cap = self.model.running_cap()
                return f"its organization has {cap} of {cap} running"
            case Cause.NO_REDIS:
                return f"{due}; Redis is away, or refuses writes: a worker that is idle cannot be rung"
            case Cause.NO_WORKER:
                return f"{due}; no worker of queue {queue} is heard"
            case Cause.NO_ECHO:
                silent_s = self.workers.silent_s
                return f"{due}; the cluster of queue {queue} has not echoed for {silent_s:.0f} s, and ends itself"
            case Cause.ALL_BUSY:
                return f"waiting for a free worker ({self.busy} of {self.workers.count} busy)"
            case Cause.NEXT:
                return f"{due}, a worker is free, and none has come" if job.is_stuck else f"{due}; a worker is free"


def _at_work(job: Any) -> str:
    ago = spelled(job.now - job.last_event_at)
    if job.last_event_kind == "StatusChanged":
        return f"begun {ago} ago"
    return ", ".join(filter(None, [job.how_far(), f"{job.last_event_kind} {ago} ago"]))


def keeper_is_running() -> bool:
    """Whether some process holds the keeper's lock on this database."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
               WHERE locktype = 'advisory' AND objid = %s AND granted AND datname = current_database())""",
            [ADVISORY_LOCK],
        )
        return bool(cursor.fetchone()[0])
