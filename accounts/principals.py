"""Who a request speaks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from django.db.models import Exists, F, OuterRef
from django.utils import timezone

from accounts import tokens
from accounts.actions.keys import MARK, NOTED_EVERY
from accounts.models import ApiKey, Membership, RefreshToken, User
from common.errors import Invalid
from common.tenancy import Principal, operator

OF_MEMBERSHIPS = ("organization_id", "role", "organization__closes_at")


def principal_of(bearer: str) -> Principal:
    """Who an access token or an API key speaks for, with the role in each organization as it is now. Raises InvalidToken."""
    return _of_key(bearer) if bearer.startswith(MARK) else _of_access_token(bearer)


def _of_key(secret: str) -> Principal:
    with operator():
        keys = ApiKey.objects.working().annotate(closes_at=F("organization__closes_at"))
        key = keys.filter(secret_sha256=tokens.sha256_of(secret)).first()
        if key is None:
            raise tokens.InvalidToken
        now = timezone.now()
        if key.last_used_at is None or now - key.last_used_at > NOTED_EVERY:
            ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
    roles, closing = _of_memberships([(key.organization_id, key.role, key.closes_at)])
    return Principal(user_id=None, key_id=key.pk, roles=roles, closing=closing)


def _of_access_token(access_token: str) -> Principal:
    claims = tokens.read(access_token)
    with operator():
        session = RefreshToken.objects.live().filter(family=claims.session, user=OuterRef("pk"))
        user = User.objects.filter(Exists(session), pk=claims.user_id, is_active=True)
        found = list(user.values_list(*(f"memberships__{name}" for name in OF_MEMBERSHIPS)))
    if not found:
        raise tokens.InvalidToken
    roles, closing = _of_memberships(found)
    return Principal(
        user_id=claims.user_id, roles=roles, closing=closing, session=claims.session, expires_at=claims.expires_at
    )


def with_roles_as_they_are(principal: Principal) -> Principal:
    """The same user, after their memberships have changed."""
    assert principal.user_id is not None
    with operator():
        memberships = Membership.objects.filter(user_id=principal.user_id)
        roles, closing = _of_memberships(memberships.values_list(*OF_MEMBERSHIPS))
    return replace(principal, roles=roles, closing=closing)


def _of_memberships(
    rows: Iterable[tuple[UUID | None, str, datetime | None]],
) -> tuple[dict[UUID, str], frozenset[UUID]]:
    """The role in each organization, and which of those are about to be deleted. A user of none has one empty row."""
    known = [(organization_id, role, closes_at) for organization_id, role, closes_at in rows if organization_id]
    roles = {organization_id: role for organization_id, role, _ in known}
    return roles, frozenset(organization_id for organization_id, _, closes_at in known if closes_at is not None)


def sole_organization(actor: Principal) -> UUID:
    """The organization that a request means which names none. Raises Invalid with ORGANIZATION_REQUIRED."""
    if len(actor.organizations) != 1:
        raise Invalid(
            "You belong to several organizations: say which with organizationId.",
            code="ORGANIZATION_REQUIRED",
            field="organizationId",
        )
    return next(iter(actor.organizations))
