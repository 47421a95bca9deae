"""Claiming: the next due job, fairly across organizations, never more of one organization than its cap."""

from __future__ import annotations

import random
from uuid import UUID

from django.db import connection
from django.db.models import Count, Q

from common.events import Event
from common.jobs import LEASE, Job, JobStatus, Lease, ServerClock
from common.tenancy import operator


def claim(model: type[Job], owner: str) -> Lease | None:
    """Lease the next due job of `model`, counting the attempt; None where nothing is due, or all are at their cap.

    Organizations with the fewest running jobs come first, then chance. Under each organization's advisory lock the cap
    is counted again: without it, two claimers that counted at once would exceed it.
    """
    with operator():
        organizations = _waiting(model)
    for organization_id in organizations:
        with operator():  # a transaction each: two of these locks held at once could deadlock
            _lock(model, organization_id)
            running = model.objects.filter(organization_id=organization_id, status=JobStatus.RUNNING).count()
            if running < model.running_cap() and (lease := _take(model, organization_id, owner)):
                model.objects.held(lease).advance([Event("StatusChanged", {"status": "RUNNING", "reason": None})])
                return lease
    return None


def _waiting(model: type[Job]) -> list[UUID]:
    due = Q(status=JobStatus.QUEUED, due_at__lte=ServerClock())
    counts = (
        model.objects.filter(due | Q(status=JobStatus.RUNNING))
        .order_by()
        .values("organization_id")
        .annotate(due=Count("pk", filter=due), running=Count("pk", filter=Q(status=JobStatus.RUNNING)))
        .filter(due__gt=0, running__lt=model.running_cap())
    )
    rows = list(counts)
    random.shuffle(rows)
    return [row["organization_id"] for row in sorted(rows, key=lambda row: row["running"])]


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
                unproductive_attempts = unproductive_attempts + 1, process = NULL,
                lease_owner = %s, lease_until = clock_timestamp() + make_interval(secs => %s),
                started_at = coalesce(started_at, clock_timestamp())
            WHERE id = (
                SELECT id FROM {table} WHERE organization_id = %s AND status = 'QUEUED' AND due_at <= clock_timestamp()
                ORDER BY due_at, id FOR UPDATE SKIP LOCKED LIMIT 1
            ) RETURNING id, fence, attempt
            """,
            [owner, LEASE.total_seconds(), organization_id],
        )
        row = cursor.fetchone()
    return row and Lease(model, row[0], organization_id, row[1], row[2])
