"""The ledger of what organizations use. Used is what the entries that count add up to, and nothing else.

Whoever is about to use something reserves it in the transaction that begins it, and settles it with what it came to,
under the same key. Both may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import connection
from django.db.models import OuterRef, Q, Subquery, Sum
from django.db.models.functions import JSONObject, Now

from accounts.models import Organization, UsageEntry
from accounts.quotas import quota_of
from accounts.usage_kinds import PERIODS, UsageKind
from common.errors import QuotaExceeded
from common.tenancy import operator

KEPT_FOR = timedelta(days=100)
FORGOTTEN_FOR = timedelta(days=1)


@dataclass(frozen=True)
class _Rule:
    """The limit of one kind."""

    limit: str
    """A field of Limits."""
    words: str
    unit: int = 1
    """What the ledger counts, of one of what the limit counts."""


_RULES = {
    UsageKind.STORAGE_BYTES: _Rule(
        "storage_bytes",
        "Your organization may store {limit:,} bytes and has {used:,}. Ask the operators of the platform for more.",
    ),
    UsageKind.RUNS: _Rule(
        "concurrent_runs",
        "Your organization may have {limit:,} runs queued or running, and has {used:,}. Wait for one to end, or cancel one.",
    ),
    UsageKind.TRAINING_SECONDS: _Rule(
        "training_minutes_per_month",
        "Your organization may train for {limit:,} minutes a month, and has for {used:,}. "
        "Go on next month, or ask the operators of the platform for more.",
        unit=60,
    ),
    UsageKind.TOKENS: _Rule(
        "tokens_per_day",
        "Your organization may use {limit:,} tokens a day, and has used or reserved {used:,}. "
        "Ask for fewer, or go on tomorrow (UTC).",
    ),
}


@dataclass(frozen=True)
class Usage:
    """What counts towards Limits now."""

    storage_bytes: int
    running_runs: int
    """Queued ones, too."""
    training_minutes_this_month: int
    tokens_today: int
    """Those reserved for predictions under way, too."""


def reserve(
    organization_id: UUID, kind: UsageKind, amount: int, *, key: str, lapses_at: datetime | None = None
) -> None:
    """Enter what is about to be used. What nobody settles or releases counts until `lapses_at`.

    Others of the organization wait until the caller's transaction ends, so two cannot both take what is left for one.
    A key that is entered stays as it is. Raises QuotaExceeded.
    """
    for refusal in reserve_each(organization_id, kind, {key: amount}, lapses_at=lapses_at).values():
        raise refusal


def reserve_each(
    organization_id: UUID, kind: UsageKind, amounts: Mapping[str, int], *, lapses_at: datetime | None = None
) -> dict[str, QuotaExceeded]:
    """`reserve` for each of `amounts`, by their keys and in their order; return those for which too little is left, and why."""
    assert connection.in_atomic_block, "a reservation is committed with what it is for"
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s))", [f"usage/{kind}", str(organization_id)]
        )
    entries = UsageEntry.objects.filter(organization_id=organization_id, kind=kind, key__in=list(amounts))
    entered = set(entries.values_list("key", flat=True))
    asked = {key: amount for key, amount in amounts.items() if key not in entered}
    if not asked:
        return {}
    limit, used = _limits(organization_id, kind)[kind], _used(organization_id, kind)[kind]
    taken, refused = [], {}
    for key, amount in asked.items():
        if used + amount > limit:
            refused[key] = _exceeded(kind, limit, used)
            continue
        used += amount
        entry = UsageEntry(organization_id=organization_id, kind=kind, key=key, amount=amount, lapses_at=lapses_at)
        taken.append(entry)
    UsageEntry.objects.bulk_create(taken)
    return refused


def require_left(organization_id: UUID, *kinds: UsageKind) -> None:
    """Raise QuotaExceeded where nothing is left of one: for what shows only in the end how much it uses.

    Nothing is reserved. What has begun before may use more than is left, and what begins at the same moment does not
    wait for it.
    """
    limits, used = _limits(organization_id, *kinds), _used(organization_id, *kinds)
    for kind in kinds:
        if used[kind] >= limits[kind]:
            raise _exceeded(kind, limits[kind], used[kind])


def limit_and_used(organization_id: UUID, kind: UsageKind) -> tuple[int, int]:
    """As the ledger counts them: for what is under way, and entered at its end."""
    return _limits(organization_id, kind)[kind], _used(organization_id, kind)[kind]


def settle(organization_id: UUID, kind: UsageKind, used: int, *, key: str) -> None:
    """Enter what was used in the end, reserved or not. It is a fact by now, and never refused."""
    entry = UsageEntry(organization_id=organization_id, kind=kind, key=key, amount=used)
    UsageEntry.objects.bulk_create(
        [entry],
        update_conflicts=True,
        unique_fields=["organization", "kind", "key"],
        update_fields=["amount", "lapses_at"],
    )


def settle_in_sum(organization_id: UUID, kind: UsageKind, used: int, *, key: str) -> None:
    """`settle` for what comes by the thousand: it is added to the one entry of the day on which it was reserved.

    Without the reservation, which is gone after the first time, nothing happens.
    """
    settle_each_in_sum(organization_id, kind, {key: used})


def settle_each_in_sum(organization_id: UUID, kind: UsageKind, used: Mapping[str, int]) -> None:
    """`settle_in_sum` for what was used under each key."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            WITH used AS (
                SELECT * FROM unnest(%s::text[], %s::bigint[]) AS given (key, amount)
            ), reserved AS (
                DELETE FROM {UsageEntry._meta.db_table} AS entry USING used
                WHERE organization_id = %s AND kind = %s AND entry.key = used.key
                RETURNING date_trunc('day', at, 'UTC') AS day, used.amount
            ) INSERT INTO {UsageEntry._meta.db_table} AS entry (organization_id, kind, key, amount, at)
            SELECT %s, %s, 'day:' || (day AT TIME ZONE 'UTC')::date, sum(amount), day FROM reserved GROUP BY day
            ON CONFLICT (organization_id, kind, key) DO UPDATE SET amount = entry.amount + excluded.amount
            """,
            [list(used), list(used.values()), organization_id, kind, organization_id, kind],
        )


def release(organization_id: UUID, kind: UsageKind, *, key: str) -> None:
    """It is used no more, or was not used."""
    UsageEntry.objects.filter(organization_id=organization_id, kind=kind, key=key).delete()


def usage_of(organization: Organization) -> Usage:
    """Costs no query where the organization was read with its `usage_sums`."""
    if not hasattr(organization, "usage_sums"):
        organization = Organization.objects.annotate(usage_sums=usage_sums()).get(pk=organization.pk)
    sums: dict[str, int] = getattr(organization, "usage_sums", None) or dict.fromkeys(UsageKind, 0)
    return Usage(
        storage_bytes=sums[UsageKind.STORAGE_BYTES],
        running_runs=sums[UsageKind.RUNS],
        training_minutes_this_month=sums[UsageKind.TRAINING_SECONDS] // _RULES[UsageKind.TRAINING_SECONDS].unit,
        tokens_today=sums[UsageKind.TOKENS],
    )


def usage_sums() -> Subquery:
    """An organization's sums by kind, for `annotate`; null where it has used nothing."""
    sums = {str(kind): Sum("amount", filter=Q(kind=kind), default=0) for kind in UsageKind}
    entries = UsageEntry.objects.counting().filter(organization_id=OuterRef("pk")).order_by()
    return Subquery(entries.values("organization_id").annotate(sums=JSONObject(**sums)).values("sums"))


def remove_what_counts_no_more() -> int:
    """Remove months and days of long ago, and reservations that were forgotten; return how many."""
    long_ago = Q(kind__in=list(PERIODS), at__lt=Now() - KEPT_FOR)
    with operator():
        return UsageEntry.objects.filter(long_ago | Q(lapses_at__lt=Now() - FORGOTTEN_FOR)).delete()[0]


def _limits(organization_id: UUID, *kinds: UsageKind) -> dict[UsageKind, int]:
    """As the ledger counts them."""
    quota = quota_of(organization_id)
    rules = {kind: _RULES[kind] for kind in kinds}
    return {kind: getattr(quota, rule.limit) * rule.unit for kind, rule in rules.items()}


def _used(organization_id: UUID, *kinds: UsageKind) -> dict[UsageKind, int]:
    entries = UsageEntry.objects.counting().filter(organization_id=organization_id, kind__in=kinds).order_by()
    sums = dict(entries.values_list("kind").annotate(Sum("amount")))
    return {kind: int(sums.get(kind, 0)) for kind in kinds}


def _exceeded(kind: UsageKind, limit: int, used: int) -> QuotaExceeded:
    rule = _RULES[kind]
    limit, used = limit // rule.unit, used // rule.unit
    return QuotaExceeded(
        rule.words.format(limit=limit, used=used), quota=rule.limit, limit=limit, used=used, resets_at=_resets_at(kind)
    )


def _resets_at(kind: UsageKind) -> datetime | None:
    period = PERIODS.get(kind)
    if period is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT date_trunc('{period}', statement_timestamp(), 'UTC') + interval '1 {period}'")
        (resets_at,) = cursor.fetchone()
    return resets_at  # type: ignore[no-any-return]
