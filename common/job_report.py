"""What `manage.py jobs` has to tell: gathered in an operator's scope, and shaped for programs.

How it looks to a person is common/job_screen.py's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from common.diagnosis import Counts, Diagnosis, Workers, keeper_is_running
from common.jobs import ENDED, MAX_UNPRODUCTIVE_ATTEMPTS, Job, JobStatus

ENDED_AT_MOST = 50


@dataclass(frozen=True)
class Entry:
    """A job, as an operator wants to know it."""

    job: Any
    why: str

    @property
    def lease_left_s(self) -> float | None:
        lease: datetime | None = self.job.lease_until
        return (lease - self.job.now).total_seconds() if lease and self.job.status == JobStatus.RUNNING else None

    @property
    def holders(self) -> list[str]:
        """The worker, as host:process, and its child's process."""
        child = self.job.process
        return [self.job.lease_owner, *([f"child {child['pid']}"] if child else [])] if self.job.lease_owner else []

    @property
    def attempt(self) -> str:
        """How often it was begun, and how many of the last attempts in a row have left nothing so far."""
        job = self.job
        return f"{job.attempt} ({job.unproductive_attempts}/{MAX_UNPRODUCTIVE_ATTEMPTS})" if job.attempt else "-"

    def to_json(self) -> dict[str, Any]:
        job = self.job
        return {
            "id": str(job.pk),
            "queue": job.queue,
            "organization": {"id": str(job.organization_id), "name": job.organization.name},
            "name": str(job),
            "status": job.status,
            "stuck": job.is_stuck,
            "cause": job.cause,
            "why": self.why,
            "since": job.since.isoformat(),
            "attempt": job.attempt,
            "unproductive_attempts": job.unproductive_attempts,
            "worker": job.lease_owner or None,
            "child": job.process,
            "lease_left_s": self.lease_left_s and round(self.lease_left_s, 1),
            "cancel_requested_at": job.cancel_requested_at and job.cancel_requested_at.isoformat(),
        }


@dataclass(frozen=True)
class Section:
    """One queue, and those of its jobs that were asked for."""

    queue: str
    kind: str
    """What its jobs are; a queue may have several kinds, and as many sections."""
    counts: Counts
    workers: Workers
    busy: int
    entries: list[Entry]
    omitted: int
    title: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "queue": self.queue,
            "kind": self.kind,
            "queued": self.counts.queued,
            "running": self.counts.running,
            "stuck": self.counts.stuck,
            "workers": self.workers.count,
            "busy": self.busy,
            "rings_unheard": self.workers.rings_unheard,
            "jobs": [entry.to_json() for entry in self.entries],
            "omitted": self.omitted,
        }


@dataclass(frozen=True)
class Report:
    sections: list[Section]
    keeper: bool

    def to_json(self) -> dict[str, Any]:
        return {"keeper": self.keeper, "queues": [section.to_json() for section in self.sections]}


def gather(models: Iterable[type[Job]], *, organizations: list[UUID] | None, ended: bool, limit: int) -> Report:
    """Unfinished jobs, stuck ones first, up to `limit` a queue (0: all); with `ended` the newest 50 of those, too."""
    sections = [_section(Diagnosis(model), organizations, ended, limit) for model in models]
    sections = [replace(section, title=_title(sections, place)) for place, section in enumerate(sections)]
    return Report(sections, keeper_is_running())


def _title(sections: list[Section], place: int) -> str:
    """The queue, and of a queue's further kinds of jobs what they are."""
    section = sections[place]
    is_first = section.queue not in {before.queue for before in sections[:place]}
    return section.queue if is_first else f"{section.queue}, {section.kind}"


def _section(diagnosis: Diagnosis, organizations: list[UUID] | None, ended: bool, limit: int) -> Section:
    jobs = diagnosis.jobs().select_related()
    if organizations is not None:
        jobs = jobs.filter(organization_id__in=organizations)
    unfinished = jobs.exclude(status__in=ENDED).order_by("-is_stuck", "-status", "due_at", "id")
    shown = list(unfinished[:limit] if limit else unfinished)
    omitted = unfinished.count() - len(shown) if limit and len(shown) == limit else 0
    if ended:
        shown += jobs.filter(status__in=ENDED).order_by("-finished_at", "-id")[:ENDED_AT_MOST]
    entries = [Entry(job, diagnosis.why(job)) for job in shown]
    kind = str(diagnosis.model._meta.verbose_name_plural)
    return Section(diagnosis.model.queue, kind, diagnosis.counts(), diagnosis.workers, diagnosis.busy, entries, omitted)


def entry_of(job: Job) -> Entry:
    diagnosis = Diagnosis(type(job))
    found = diagnosis.jobs().select_related().get(pk=job.pk)
    return Entry(found, diagnosis.why(found))
