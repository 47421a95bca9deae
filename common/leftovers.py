"""What a job, an attempt, or an upload leaves behind, and how it goes away.

Whoever makes these removes them, too, unless killed, or unless the job ended while nobody worked on it: then the keeper does.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psutil
from django.conf import settings

from common import blobs
from common.jobs import Job
from common.tenancy import operator

logger = logging.getLogger(__name__)

SETTLED = timedelta(minutes=1)  # the worker that ended a job may be just removing its folder
EVENTS = "events.jsonl"


def attempt_folder(job_id: UUID, fence: int) -> Path:
    return Path(settings.ATTEMPTS_ROOT) / str(job_id) / f"{fence:04d}"


def kill_group(pid: int) -> None:
    """Kill a process group, if there is one left."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def child_lives(job: Job) -> bool:
    """Whether the child of the present attempt lives on this host.

    It is known by its command line, which names the attempt: a process id may be another's by now, and the time of a
    start is told by a clock that may have been set since.
    """
    if not job.process or job.process["host"] != socket.gethostname():
        return False
    try:
        return str(attempt_folder(job.pk, job.fence)) in psutil.Process(job.process["pid"]).cmdline()
    except psutil.Error:  # gone, or another user's
        return False


def kill_child(job: Job) -> None:
    """Kill the child that a lost worker left on this host."""
    if job.process and child_lives(job):
        kill_group(job.process["pid"])


def remove_what_it_left(job: Job) -> None:
    """Remove the work folder of a job that has ended, and what those of its attempts stored that did not make it."""
    kept = job.keeps()
    for name in blobs.folders(job.artefacts):
        if name not in kept:
            blobs.delete_folder(f"{job.artefacts}/{name}")
    shutil.rmtree(Path(settings.ATTEMPTS_ROOT) / str(job.pk), ignore_errors=True)


def remove_leftovers(models: Iterable[type[Job]]) -> None:
    """Remove what jobs that have ended left."""
    folders = {folder.name: folder for folder in _entries(Path(settings.ATTEMPTS_ROOT)) if _has_settled(folder)}
    ids = [name for name in folders if is_id(name)]
    for model in models:
        with operator():
            jobs = list(model.objects.filter(pk__in=ids))
            settled = set(model.objects.filter(pk__in=ids).ended_before(SETTLED).values_list("pk", flat=True))
        for job in jobs:
            del folders[str(job.pk)]
            if job.pk in settled:
                _remove(job)
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)


def _remove(job: Job) -> None:
    try:
        remove_what_it_left(job)
    except Exception:  # of one job, which is no reason to leave the others
        logger.exception("What %s has left could not be removed.", job.pk)


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _has_settled(folder: Path) -> bool:
    return age_s(folder) > SETTLED.total_seconds()


def age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:  # its owner has just removed it
        return 0.0


def is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
