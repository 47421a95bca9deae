"""What operators set for an organization. It runs in the caller's scope: the admin's, which sees all organizations."""

from __future__ import annotations

from collections.abc import Mapping

from django.db import transaction

from accounts import audit
from accounts.models import Organization, Quota
from accounts.quotas import LIMITS
from common.tenancy import Principal

DEFAULT = "default"


@transaction.atomic
def change_quota(*, actor: Principal, organization: Organization, limits: Mapping[str, int | None]) -> None:
    """Set those of an organization's limits that are named; None is the installation's default."""
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)  # each change follows the one before
    quota, _ = Quota.objects.get_or_create(organization=organization)
    for name in LIMITS:
        before, after = getattr(quota, name), limits.get(name, getattr(quota, name))
        if before != after:
            setattr(quota, name, after)
            audit.record(
                organization.pk,
                actor=actor.name,
                action="quota.change",
                target=f"quota:{name}",
                before=DEFAULT if before is None else before,
                after=DEFAULT if after is None else after,
            )
    quota.save()
