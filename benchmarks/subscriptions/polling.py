"""The peer: the platform's own web process, but for one thing. Each watcher's resolver polls the table by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

from platform_site.asgi import application  # isort: skip  (it loads the apps)
from common import graphql_jobs
from common.events import JobEvent
from common.jobs import ENDED, Job
from common.tenancy import organizations_scope
from common.threads import in_thread

POLL_EVERY_S = 1.0
PAGE = 500

__all__ = ["application"]


async def poll(job: Job, after: int) -> AsyncIterator[list[JobEvent]]:
    """What common.tails.watch promises."""
    while True:
        if page := await in_thread(partial(_page, job, after)):
            after = page[-1].sequence
            yield page
            if any(event.kind == "StatusChanged" and event.data["status"] in ENDED for event in page):
                return
        else:
            await asyncio.sleep(POLL_EVERY_S)


def _page(job: Job, after: int) -> list[JobEvent]:
    with organizations_scope([job.organization_id]):
        return job.event_model.page(job, after, PAGE)


graphql_jobs.watch = poll  # type: ignore[attr-defined]
