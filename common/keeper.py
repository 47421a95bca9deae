"""What looks after jobs that nobody is looking after: one small process, made one by an advisory lock."""

from __future__ import annotations

import logging
import socket
from typing import Any

import psutil

from common.jobs import Job, ServerClock
from common.queues import ring, rings_unheard
from common.supervision import kill_group, requeue
from common.tenancy import operator

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 15.0
MAX_RINGS = 8


def sweep(model: type[Job]) -> None:
    """Requeue jobs whose lease ran out, and ring once more for queued ones that nobody came for."""
    with operator():
        lost = list(model.objects.lease_ran_out())
    for job in lost:
        _kill_leftover(job.process)
        with operator():
            logger.warning("The lease of %s %s ran out (attempt %d).", model.__name__, job.pk, job.attempt)
            requeue(model.objects.lease_ran_out().filter(pk=job.pk, fence=job.fence), "Its worker was lost.")
    with operator():
        due = model.objects.queued().filter(due_at__lte=ServerClock()).count()
    # busy workers leave rings unheard, and more of them would not be heard sooner
    for _ in range(min(due, MAX_RINGS) - rings_unheard(model.queue)):
        ring(model.queue)


def _kill_leftover(process: dict[str, Any] | None) -> None:
    """Kill the child that a dead worker left on this host, unless its process id belongs to another by now."""
    if not process or process["host"] != socket.gethostname():
        return
    try:
        if psutil.Process(process["pid"]).create_time() == process["started"]:
            kill_group(process["pid"])
    except psutil.NoSuchProcess:
        pass
