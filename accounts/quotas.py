"""What an organization may use: what an operator has set for it, and the installation's default for all else."""

from __future__ import annotations

from dataclasses import dataclass, fields
from uuid import UUID

from django.conf import settings

from accounts.models import Organization, Quota

_DEFAULTS = {
    "storage_bytes": "QUOTA_STORAGE_BYTES",
    "concurrent_runs": "QUOTA_CONCURRENT_RUNS",
    "training_minutes_per_month": "QUOTA_TRAINING_MINUTES_PER_MONTH",
    "tokens_per_day": "QUOTA_TOKENS_PER_DAY",
    "requests_per_minute": "REQUESTS_PER_MINUTE",
}


@dataclass(frozen=True)
class Limits:
    storage_bytes: int
    concurrent_runs: int
    """Queued and running together."""
    training_minutes_per_month: int
    tokens_per_day: int
    """Of prompts and answers together."""
    requests_per_minute: int
    """Of each user, and of all API keys together."""


LIMITS = [field.name for field in fields(Limits)]


def default(limit: str) -> int:
    """The installation's value of a field of Limits."""
    value: int = getattr(settings, _DEFAULTS[limit])
    return value


def quota_of(organization_id: UUID) -> Limits:
    return _limits(Quota.objects.filter(pk=organization_id).first())


def quota_known_of(organization: Organization) -> Limits:
    """`quota_of`; costs no query where the quota has been selected along with the organization."""
    return _limits(getattr(organization, "quota", None))


def _limits(quota: Quota | None) -> Limits:
    own = {name: getattr(quota, name, None) for name in LIMITS}
    return Limits(**{name: default(name) if value is None else value for name, value in own.items()})
