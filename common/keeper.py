"""What looks after jobs that nobody is looking after: one small process, made one by an advisory lock."""

from __future__ import annotations

import logging
import shutil
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from django.conf import settings

from common.jobs import ENDED, Job, ServerClock
from common.queues import ring, rings_unheard
from common.supervision import kill_group, requeue
from common.tenancy import operator

logger = logging.getLogger(__name__)

SWEEP_EVERY_S = 15.0
MAX_RINGS = 8
SETTLED_S = 60.0  # the worker that ended a job may be just removing its folder
ABANDONED_S = 3600.0


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


def remove_leftovers(models: Iterable[type[Job]]) -> None:
    """Remove work folders of jobs that have ended, and uploads that nobody has gone on sending for an hour.

    Whoever makes them removes them, too, unless killed, or unless the job ended while nobody worked on it.
    """
    folders = {folder.name: folder for folder in _entries(Path(settings.ATTEMPTS_ROOT))}
    with operator():
        for model in models:
            unfinished = model.objects.exclude(status__in=ENDED).filter(
                pk__in=[name for name in folders if _is_id(name)]
            )
            for key in unfinished.values_list("pk", flat=True):
                folders.pop(str(key))
    for folder in folders.values():
        if folder.stat().st_mtime < time.time() - SETTLED_S:
            shutil.rmtree(folder, ignore_errors=True)
    for file in _entries(Path(settings.INCOMING_ROOT)):
        if file.stat().st_mtime < time.time() - ABANDONED_S:
            file.unlink(missing_ok=True)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False


def _kill_leftover(process: dict[str, Any] | None) -> None:
    """Kill the child that a dead worker left on this host, unless its process id belongs to another by now."""
    if not process or process["host"] != socket.gethostname():
        return
    try:
        if psutil.Process(process["pid"]).create_time() == process["started"]:
            kill_group(process["pid"])
    except psutil.NoSuchProcess:
        pass
