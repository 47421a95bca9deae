"""How commands speak to an operator who has a job made, and may wait for it."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Any, NoReturn, Protocol, TextIO, TypeVar

from django.conf import settings
from django.db.models import QuerySet
from django.urls import reverse
from rich.console import Console
from rich.text import Text

from common.following import followed
from common.job_screen import console
from common.jobs import Job, JobStatus
from common.lookup import api_id, short
from common.text import one_line

J = TypeVar("J", bound=Job)


class Screen:
    """A terminal, on which bars move, or a pipe, for which there are lines."""

    def __init__(self, file: TextIO) -> None:
        self.console: Console = console(file)
        self.moves = self.console.is_terminal

    def line(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style), soft_wrap=True)

    def ended_badly(self, job: Job) -> None:
        said = f": {one_line(job.error_message, 1000)}" if job.error_message else ""
        self.line(f"{job.status}{said}", "red")

    def where(self, job: Job) -> None:
        """Where to see more of a job, and, while it has not ended, how to look and to cancel."""
        kind, name = job._meta, short(job)
        page = reverse(f"admin:{kind.app_label}_{kind.model_name}_change", args=[job.pk])
        self.line(f"Its page:  {settings.PUBLIC_URL}{page}")
        self.line(f"In the API: {api_id(job)}")
        if not job.has_ended:
            self.line(f"To look:   manage.py jobs show {name}")
            self.line(f"To cancel: manage.py jobs cancel {name}")


class Takes(Protocol):
    def take(self, kind: str, data: dict[str, Any]) -> None:
        """One more event of the job."""


def watched(screen: Screen, rows: QuerySet[J], job: J, shown: AbstractContextManager[Takes], noun: str) -> J:
    """The job of `rows` once it has ended. Ctrl-C ends the command alone, and says what to do about a job that goes on."""
    try:
        with shown as steps:
            return followed(rows, job, steps.take, lambda why: screen.line(f"  {why}", "dim"))
    except KeyboardInterrupt:
        begin = f"The {noun} goes on without you. "
        sys.stderr.write(
            f"\n{begin}To look:  manage.py jobs show {short(job)}\n"
            f"{' ' * len(begin)}To cancel: manage.py jobs cancel {short(job)}\n"
        )
        sys.exit(130)


def exit_unless_well(job: Job) -> None:
    """The exit status tells a script that the job has failed, or was cancelled."""
    if job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        sys.exit(1)


def fail(message: str) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(1)
