"""Jobs on the wire: status, and the events that every kind of job may log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import strawberry

from common.errors import NotFound
from common.events import JobEvent
from common.graphql import Info, model_id
from common.jobs import Job, JobStatus
from common.tails import watch
from common.tenancy import tenant
from common.threads import in_thread

strawberry.enum(JobStatus, description="A job ends in exactly one of the last three, and never leaves it.")

MAX_EVENTS = 5_000


@strawberry.interface(name="JobEvent", description="Something that happened to a job.")
class JobEventType:
    sequence: int = strawberry.field(description="Its place in the job's log, from 1; the cursor to go on after.")
    at: datetime = strawberry.field(description="When it happened.")


@strawberry.type(description="The job came into a state.")
class StatusChanged(JobEventType):
    status: JobStatus = strawberry.field(description="The state.")
    reason: str | None = strawberry.field(default=None, description="Why, where that says more than the state does.")


_types: dict[str, type[Any]] = {"StatusChanged": StatusChanged}


def event_type(cls: type[Any]) -> type[Any]:
    """Register an app's event type: rows of the log whose kind is the type's name are shown as it."""
    _types[cls.__name__] = cls
    return cls


def event_types() -> list[type[Any]]:
    return list(_types.values())


def shown(row: JobEvent) -> JobEventType:
    """A row of the log as its GraphQL type; fields that the type does not (yet) have are left out."""
    cls = _types[row.kind]
    names = {field.python_name for field in cls.__strawberry_definition__.fields}
    event: JobEventType = cls(
        sequence=row.sequence, at=row.at, **{name: value for name, value in row.data.items() if name in names}
    )
    return event


def page_of_events(job: Job, first: int, after: int) -> list[JobEventType]:
    limit = max(0, min(first, MAX_EVENTS))
    return [shown(row) for row in job.event_model.page(job, max(after, 0), limit)]


async def follow(info: Info, global_id: str, model: type[Any], after: int) -> AsyncIterator[list[JobEventType]]:
    """A subscription to one job's events. Raises NotFound for a job that this caller cannot see."""
    actor, key = info.context.actor, model_id(global_id, model)

    def visible() -> Any:
        with tenant(actor):
            found = model.objects.visible_to(actor).filter(pk=key)
            return found.only("organization_id", "status", "last_sequence").first()  # all that watching needs

    job = await in_thread(visible)
    if job is None:
        raise NotFound
    async for batch in watch(job, max(after, 0)):
        yield [shown(row) for row in batch]
