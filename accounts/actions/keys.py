"""API keys: made, revoked, and recognised."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from accounts import audit, tokens
from accounts.models import ApiKey, Organization, Role
from accounts.permissions import ROLES, Permission, authorize, authorize_role
from accounts.standing import with_role_held
from common.errors import Invalid
from common.tenancy import Principal
from common.text import plain_text

MARK = "ftk_"
SHOWN_CHARACTERS = 12
MAX_KEYS = 100
NOTED_EVERY = timedelta(minutes=1)


@dataclass(frozen=True)
class IssuedKey:
    """The only time that the whole key is known."""

    key: ApiKey
    secret: str


@transaction.atomic
def create_key(
    *, actor: Principal, organization: Organization, name: str, role: Role, expires_at: datetime | None
) -> IssuedKey:
    """A key of 256 random bits. Raises NotAllowed, also for a role above one's own, and Invalid."""
    actor = with_role_held(actor, organization.pk)
    authorize(actor, Permission.MANAGE_KEYS, organization.pk)
    authorize_role(actor, role, organization.pk)
    # two requests must not both make the last one; whoever joins meanwhile only refers to the organization's id
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if expires_at is not None:
        expires_at = _usable_end(expires_at)
    if ApiKey.objects.filter(organization=organization).working().count() >= MAX_KEYS:
        raise Invalid(f"An organization has at most {MAX_KEYS} keys: revoke one first.", code="TOO_MANY_KEYS")
    secret = MARK + secrets.token_urlsafe(32)
    key = ApiKey.objects.create(
        organization=organization,
        name=plain_text(name, "name", 150),
        prefix=secret[:SHOWN_CHARACTERS],
        secret_sha256=tokens.sha256_of(secret),
        role=role,
        created_by_id=actor.user_id,
        expires_at=expires_at,
    )
    audit.record(organization.pk, actor=actor.name, action="key.create", target=f"key:{key.pk}", role=role.value)
    return IssuedKey(key, secret)


def _usable_end(moment: datetime) -> datetime:
    """In UTC: at the very end of the calendar another zone's year 9999 is one that no clock here shows. Raises Invalid."""
    if moment.tzinfo is None:
        raise Invalid("expiresAt should have a time zone, as 2030-01-31T12:00:00Z has.", field="expiresAt")
    try:
        end = moment.astimezone(UTC)
    except OverflowError:
        raise Invalid("expiresAt should lie within the years 1 to 9999 in UTC.", field="expiresAt") from None
    if end <= timezone.now():
        raise Invalid("expiresAt should lie in the future.", field="expiresAt")
    return end


@transaction.atomic
def revoke_key(*, actor: Principal, key: ApiKey) -> None:
    """Have it work no more; one that does not is left as it is. Raises NotAllowed, also for one above one's own role."""
    actor = with_role_held(actor, key.organization_id)
    authorize(actor, Permission.MANAGE_KEYS, key.organization_id)
    authorize_role(actor, Role(key.role), key.organization_id)
    if ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(revoked_at=timezone.now()):
        audit.record(key.organization_id, actor=actor.name, action="key.revoke", target=f"key:{key.pk}")


def revoke_above(organization_id: UUID, maker_id: UUID, role: Role | None, *, actor: Principal) -> None:
    """Revoke the keys that somebody made who is now `role`, or none any more, and that may do more than they."""
    keys = ApiKey.objects.filter(organization_id=organization_id, created_by_id=maker_id).working()
    for key in keys:
        if role is None or not ROLES[Role(key.role)] <= ROLES[role]:
            ApiKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())
            audit.record(organization_id, actor=actor.name, action="key.revoke", target=f"key:{key.pk}")
