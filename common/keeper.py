"""What looks after jobs that nobody is looking after."""

from __future__ import annotations

import logging
import socket

from common.jobs import Job, JobStatus, ServerClock, requeue
from common.leftovers import attempt_folder, child_lives, kill_child
from common.outages import AWAY
from common.presence import has_died
from common.queues import ring, rings_unheard
from common.tenancy import operator

logger = logging.getLogger(__name__)

ADVISORY_LOCK = 0x6B656570  # any number that nobody else uses
MAX_RINGS = 8


def requeue_lost(model: type[Job]) -> None:
    """Requeue jobs whose worker has died on this host, or whose lease ran out, once the child that it may have left here
    has been killed.
    """
    with operator():
        lost = [*model.objects.lease_ran_out(), *_abandoned(model)]
    for job in {job.pk: job for job in lost}.values():
        try:
            _requeue(model, job)
        except AWAY:
            raise
        except Exception:  # of one job, which is no reason to leave the others
            logger.exception("%s %s could not be requeued.", model.__name__, job.pk)


def _requeue(model: type[Job], job: Job) -> None:
    attempt = model.objects.filter(pk=job.pk, fence=job.fence, status=JobStatus.RUNNING)
    if not has_died(attempt_folder(job.pk, job.fence)):
        attempt = model.objects.lease_ran_out().filter(pk=job.pk, fence=job.fence)  # it may have been renewed just now
    with operator():
        if not attempt.exists():
            return
    kill_child(job.process)
    with operator():
        if requeue(attempt, "Its worker was lost.") is not None:
            logger.warning("The worker of %s %s was lost (attempt %d).", model.__name__, job.pk, job.attempt)


def _abandoned(model: type[Job]) -> list[Job]:
    """Jobs whose worker has died, and whose child, which may save what it has first, has followed it."""
    running = model.objects.filter(status=JobStatus.RUNNING, lease_owner__startswith=f"{socket.gethostname()}:")
    return [job for job in running if has_died(attempt_folder(job.pk, job.fence)) and not child_lives(job.process)]


def ring_for_due(model: type[Job]) -> None:
    """Ring for queued jobs that are due: nobody came for them, or their time has only now come."""
    with operator():
        due = model.objects.queued().filter(due_at__lte=ServerClock())[:MAX_RINGS].count()
    if not due or (unheard := rings_unheard(model.queue)) is None:
        return
    for _ in range(due - unheard):  # busy workers leave rings unheard, and more of them would not be heard sooner
        ring(model.queue)
