"""A job is followed from the shell until it has ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from django.db import close_old_connections
from django.db.models import QuerySet

from common.job_report import entry_of
from common.jobs import Job, JobStatus
from common.outages import AWAY, first_line
from common.tenancy import operator

J = TypeVar("J", bound=Job)

LOOK_EVERY_S = 0.3
EVENTS_AT_ONCE = 1_000
_NUMBER = re.compile(r"\d+ ?(s|min|h|d)?\b")


def followed(rows: QuerySet[J], job: J, take: Callable[[str, dict[str, Any]], None], say: Callable[[str], None]) -> J:
    """The job of `rows` once it has ended, and all that happened has been given to `take`, as (kind, data).

    What keeps it from going on is said once: for how long, which changes each second, is no news.
    """
    after, said = 0, ""
    while True:
        try:
            with operator():
                job = rows.get(pk=job.pk)
                events = job.event_model.page(job, after, EVENTS_AT_ONCE)
                why = entry_of(job).why if job.status == JobStatus.QUEUED else ""
        except AWAY as error:
            events, why = [], f"The database does not answer; it may go on: {first_line(error)}"
            close_old_connections()
        if why and _NUMBER.sub("", why) != said:
            say(why)
        said = _NUMBER.sub("", why)
        for event in events:
            take(event.kind, event.data)
            after = event.sequence
        if events:
            continue
        if job.has_ended and not why:
            return job
        time.sleep(LOOK_EVERY_S)
