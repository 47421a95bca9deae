"""Who uses how many tokens, for operators: the organizations with the most of them, from the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db.models import Q, Sum
from django.db.models.functions import Now

from accounts.models import Organization, UsageEntry
from accounts.quotas import quota_known_of
from accounts.usage_kinds import PeriodStart, UsageKind


@dataclass(frozen=True)
class TokenUsage:
    """Days are UTC's, today among them."""

    organization: Organization
    today: int
    reserved: int
    """Of today's: for predictions under way."""
    seven_days: int
    thirty_days: int
    limit: int
    """A day."""


def most_tokens(count: int) -> list[TokenUsage]:
    """Of the last thirty days; whoever has used most today comes first. In an operator's scope."""
    today = PeriodStart("day")
    since_today, since_week = Q(at__gte=today), Q(at__gte=today - timedelta(days=6))
    entries = UsageEntry.objects.filter(Q(lapses_at=None) | Q(lapses_at__gt=Now()), kind=UsageKind.TOKENS)
    sums = (
        entries.filter(at__gte=today - timedelta(days=29))
        .order_by()
        .values("organization_id")
        .annotate(
            today=Sum("amount", filter=since_today, default=0),
            reserved=Sum("amount", filter=since_today & Q(lapses_at__isnull=False), default=0),
            seven_days=Sum("amount", filter=since_week, default=0),
            thirty_days=Sum("amount"),
        )
        .order_by("-today", "-thirty_days", "organization_id")[:count]
    )
    rows = list(sums)
    organizations = Organization.objects.select_related("quota").in_bulk([row["organization_id"] for row in rows])
    return [_usage(organizations[row.pop("organization_id")], row) for row in rows]


def _usage(organization: Organization, sums: dict[str, int]) -> TokenUsage:
    limit = quota_known_of(organization).tokens_per_day
    return TokenUsage(organization, **{name: int(tokens) for name, tokens in sums.items()}, limit=limit)
