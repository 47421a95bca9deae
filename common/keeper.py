"""What looks after jobs that nobody is looking after."""

from __future__ import annotations

import logging
import socket
import time
from datetime import datetime
from uuid import UUID

from common.held import HeldJob, LeaseLost
from common.jobs import HEARTBEAT_S, Job, JobStatus, Lease, requeue
from common.leftovers import EVENTS, attempt_folder, child_lives, kill_child
from common.outages import AWAY, is_away, told
from common.presence import has_died
from common.queues import ring, rings_unheard
from common.tenancy import operator

logger = logging.getLogger(__name__)

ADVISORY_LOCK = 0x6B656570  # any number that nobody else uses
MAX_RINGS = 8
CONFIRMED_AFTER_S = HEARTBEAT_S + 0.5

_seen_overdue: dict[type[Job], dict[tuple[UUID, int, datetime | None], float]] = {}
"""When this process first saw a lease overdue that has not been renewed since, by time.monotonic()."""


def requeue_lost(model: type[Job]) -> None:
    """Requeue jobs whose worker has died on this host, or whose lease ran out, once the child that it may have left here
    has been killed.
    """
    with operator():
        lost = [*_overdue(model), *_abandoned(model)]
    for job in {job.pk: job for job in lost}.values():
        try:
            _requeue(model, job)
        except AWAY as error:
            if is_away(error):
                raise
            logger.warning("%s %s could not be requeued. %s", model.__name__, job.pk, told(error))
        except Exception:  # of one job, which is no reason to leave the others
            logger.exception("%s %s could not be requeued.", model.__name__, job.pk)


def _overdue(model: type[Job]) -> list[Job]:
    """Jobs whose lease has run out, and was not renewed for a heartbeat of this process's own time.

    If PostgreSQL's clock is set forward, all leases run out at once, and their holders are about to renew them.
    """
    now, before = time.monotonic(), _seen_overdue.get(model, {})
    jobs = {(job.pk, job.fence, job.lease_until): job for job in model.objects.lease_ran_out()}
    since = _seen_overdue[model] = {lease: before.get(lease, now) for lease in jobs}
    return [job for lease, job in jobs.items() if now - since[lease] >= CONFIRMED_AFTER_S]


def _requeue(model: type[Job], job: Job) -> None:
    attempt = model.objects.filter(pk=job.pk, fence=job.fence, status=JobStatus.RUNNING)
    if not has_died(attempt_folder(job.pk, job.fence)):
        attempt = model.objects.lease_ran_out().filter(pk=job.pk, fence=job.fence)  # it may have been renewed just now
    with operator():
        if not attempt.exists():
            return
    kill_child(job)
    _forward_last_events(model, job)
    with operator():
        if requeue(attempt, "Its worker was lost.") is not None:
            logger.warning("The worker of %s %s was lost (attempt %d).", model.__name__, job.pk, job.attempt)


def _forward_last_events(model: type[Job], job: Job) -> None:
    """What the child told after its worker's death: if it saved what it had, the attempt was not without progress."""
    held = HeldJob(Lease(model, job.pk, job.organization_id, job.fence, job.attempt), lambda: True, job.events_offset)
    try:
        held.forward_events(attempt_folder(job.pk, job.fence) / EVENTS)
    except AWAY:
        raise
    except LeaseLost:  # somebody else has taken it on
        pass
    except Exception:  # of a file, which is no reason to leave the job
        logger.exception("The last events of %s %s could not be read.", model.__name__, job.pk)


def _abandoned(model: type[Job]) -> list[Job]:
    """Jobs whose worker has died, and whose child, which may save what it has first, has followed it."""
    running = model.objects.filter(status=JobStatus.RUNNING, lease_owner__startswith=f"{socket.gethostname()}:")
    return [job for job in running if has_died(attempt_folder(job.pk, job.fence)) and not child_lives(job)]


def ring_for_due(model: type[Job]) -> None:
    """Ring for queued jobs that are due: nobody came for them, or their time has only now come."""
    with operator():
        due = model.objects.due()[:MAX_RINGS].count()
    if not due or (unheard := rings_unheard(model.queue)) is None:
        return
    for _ in range(due - unheard):  # busy workers leave rings unheard, and more of them would not be heard sooner
        ring(model.queue)
