"""What the commands share that list jobs, and change them one by one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.db import close_old_connections
from django.db.models import Q

from common.errors import Invalid
from common.jobs import Job, job_models
from common.lookup import short
from common.outages import AWAY, first_line
from common.tenancy import operator
from common.text import one_line

ACTOR = "command"  # as the audit log has it: who is at the shell, the platform does not know


def change_each(texts: Sequence[str], find: Callable[[str], Job], change: Callable[[Job, str], str]) -> None:
    """Each by itself: what is wrong with one holds up no other. The exit status is 1 where something was."""
    refused = False
    for text in texts:
        try:
            with operator():
                became = _changed(change, find(text))
            sys.stdout.write(f"{became}\n")  # once it is committed
        except Invalid as refusal:
            refused = True
            sys.stderr.write(f"{refusal.message}\n")
        except AWAY as error:
            refused = True
            sys.stderr.write(f"{unreachable(error)} ({text} is as it was)\n")
            close_old_connections()
    if refused:
        sys.exit(1)


def _changed(change: Callable[[Job, str], str], job: Job) -> str:
    """What became of it. Raises Invalid."""
    name = f"{short(job)} {one_line(str(job), 200)}"
    try:
        return f"{name}: {change(job, ACTOR)}"
    except Invalid as refusal:
        raise Invalid(f"{name}: {refusal.message}") from refusal


def organizations_called(text: str) -> list[UUID]:
    """Raises Invalid where there is none."""
    organizations: Any = job_models()[0]._meta.get_field("organization").related_model
    found = list(organizations.objects.filter(Q(name__iexact=text) | Q(slug=text)).values_list("pk", flat=True))
    if not found:
        raise Invalid(f"No organization is called {text}.")
    return found


def whole_number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"should be 0 or a larger whole number, not {text!r}")
    return int(text)


def unreachable(error: Exception) -> str:
    return f"The database does not answer, or was not migrated: {first_line(error)}"
