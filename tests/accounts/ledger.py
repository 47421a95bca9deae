"""What stands in the ledger, and limits for a test."""

from __future__ import annotations

from accounts.models import Quota, UsageEntry
from accounts.usage import Usage, usage_of
from common.tenancy import operator
from tests.cast import Person


def allow(person: Person, **limits: int | None) -> None:
    """Set limits of the person's organization."""
    with operator():
        Quota.objects.update_or_create(organization=person.organization, defaults=limits)


def entries(person: Person) -> dict[tuple[str, str], int]:
    """Amounts by kind and key."""
    with operator():
        found = UsageEntry.objects.filter(organization=person.organization)
        return {(kind, key): amount for kind, key, amount in found.values_list("kind", "key", "amount")}


def used(person: Person) -> Usage:
    with operator():
        return usage_of(person.organization)
