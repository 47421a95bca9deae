"""Claiming: the next due job, fairly across organizations, never more of one organization than its cap."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from django.db import connection

from common.events import Event
from common.jobs import LEASE, Job, JobStatus, Lease
from common.tenancy import operator

WINDOW = 32
"""So many organizations are looked at at a time: what a claim costs grows neither with the queue nor with them."""

_NOBODY, _EVERYBODY = UUID(int=0), UUID(int=2**128 - 1)
_turns: dict[str, UUID] = {}
"""By queue, the organization that this process served last. The first turn falls on anybody."""


class _Waiting(NamedTuple):
    organization_id: UUID
    claimable: bool
    running: int


def claim(model: type[Job], owner: str) -> Lease | None:
    """Lease the next due job of `model`, counting the attempt; None where nothing is due, or all are at their cap.

    Organizations take turns, those with fewer running jobs first, so that a flood of one costs each other no more than
    one of its turns. Under each organization's advisory lock the cap is counted again: without it, two claimers that
    counted at once would exceed it.
    """
    for window in _windows(model, _turns.setdefault(model.queue, uuid4())):
        for organization_id in window:
            with operator():  # a transaction each: two of these locks held at once could deadlock
                _lock(model, organization_id)
                running = model.objects.filter(organization_id=organization_id, status=JobStatus.RUNNING).count()
                if running < model.running_cap() and (lease := _take(model, organization_id, owner)):
                    model.objects.held(lease).advance([Event("StatusChanged", {"status": "RUNNING", "reason": None})])
                    _turns[model.queue] = organization_id
                    return lease
    return None


def _windows(model: type[Job], last: UUID) -> Iterator[list[UUID]]:
    """Once around the organizations with queued jobs, from behind `last` to `last`: those that may have one claimed."""
    circle = _circle(model, last)
    while window := list(islice(circle, WINDOW)):
        yield [each.organization_id for each in sorted(window, key=lambda each: each.running) if each.claimable]


def _circle(model: type[Job], last: UUID) -> Iterator[_Waiting]:
    for begin, end in [(last, _EVERYBODY), (_NOBODY, last)]:
        while True:
            with operator():
                page = _waiting(model, begin, end)
            yield from page
            if len(page) < WINDOW:
                break
            begin = page[-1].organization_id


def _waiting(model: type[Job], after: UUID, until: UUID) -> list[_Waiting]:
    """The next organizations with queued jobs, by id.

    A loose scan of the index <model>_queued: one step for each organization, however many jobs it has.
    """
    table = connection.ops.quote_name(model._meta.db_table)
    next_one = f"""SELECT organization_id FROM {table} WHERE status = 'QUEUED'
                   AND organization_id > %s AND organization_id <= %s ORDER BY organization_id LIMIT 1"""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH RECURSIVE waiting (organization_id, place) AS (
                (SELECT organization_id, 1 FROM ({next_one}) first)
                UNION ALL
                SELECT following.organization_id, place + 1 FROM waiting, LATERAL (
                    {next_one.replace("%s", "waiting.organization_id", 1)}
                ) following WHERE place < %s
            ), counted AS (
                SELECT organization_id, place, EXISTS (
                    SELECT FROM {table} job WHERE job.organization_id = waiting.organization_id
                        AND status = 'QUEUED' AND due_at <= clock_timestamp()
                ) AS due, (
                    SELECT count(*) FROM {table} job WHERE job.organization_id = waiting.organization_id
                        AND status = 'RUNNING'
                ) AS running, {_is_open(model, "waiting.organization_id")} AS open FROM waiting
            ) SELECT organization_id, due AND open AND running < %s, running FROM counted ORDER BY place
            """,
            [after, until, until, WINDOW, model.running_cap()],
        )
        return [_Waiting(*row) for row in cursor.fetchall()]


def _is_open(model: type[Job], organization_id: str) -> str:
    """Nothing is begun for an organization that is about to be deleted: what is queued waits for its restoration."""
    organizations: Any = model._meta.get_field("organization").related_model
    table = connection.ops.quote_name(organizations._meta.db_table)
    return f"EXISTS (SELECT FROM {table} o WHERE o.id = {organization_id} AND o.closes_at IS NULL)"


def _lock(model: type[Job], organization_id: UUID) -> None:
    """Held for the few milliseconds until the claim commits, so waiting is cheaper than coming back."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s))", [model.queue, str(organization_id)])


def _take(model: type[Job], organization_id: UUID, owner: str) -> Lease | None:
    table = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE {table} SET status = 'RUNNING', attempt = attempt + 1, fence = fence + 1,
                unproductive_attempts = unproductive_attempts + 1, process = NULL, events_offset = 0,
                lease_owner = %s, lease_until = clock_timestamp() + make_interval(secs => %s),
                started_at = coalesce(started_at, clock_timestamp())
            WHERE id = (
                SELECT id FROM {table} WHERE organization_id = %s AND status = 'QUEUED' AND due_at <= clock_timestamp()
                AND {_is_open(model, f"{table}.organization_id")}
                ORDER BY due_at, id FOR UPDATE SKIP LOCKED LIMIT 1
            ) RETURNING id, fence, attempt
            """,
            [owner, LEASE.total_seconds(), organization_id],
        )
        row = cursor.fetchone()
    return row and Lease(model, row[0], organization_id, row[1], row[2])
