"""Who a request speaks for."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from django.db.models import Exists, OuterRef
from django.utils import timezone

from accounts import tokens
from accounts.actions.keys import MARK, NOTED_EVERY
from accounts.models import ApiKey, Membership, RefreshToken, User
from common.errors import Invalid
from common.tenancy import Principal, operator


def principal_of(bearer: str) -> Principal:
    """Who an access token or an API key speaks for, with the role in each organization as it is now. Raises InvalidToken."""
    return _of_key(bearer) if bearer.startswith(MARK) else _of_access_token(bearer)


def _of_key(secret: str) -> Principal:
    with operator():
        key = ApiKey.objects.working().filter(secret_sha256=tokens.sha256_of(secret)).first()
        if key is None:
            raise tokens.InvalidToken
        now = timezone.now()
        if key.last_used_at is None or now - key.last_used_at > NOTED_EVERY:
            ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
    return Principal(user_id=None, key_id=key.pk, roles={key.organization_id: key.role})


def _of_access_token(access_token: str) -> Principal:
    claims = tokens.read(access_token)
    with operator():
        session = RefreshToken.objects.live().filter(family=claims.session, user=OuterRef("pk"))
        user = User.objects.filter(Exists(session), pk=claims.user_id, is_active=True)
        found = list(user.values_list("memberships__organization_id", "memberships__role"))
    if not found:
        raise tokens.InvalidToken
    roles: dict[UUID, str] = {organization_id: role for organization_id, role in found if organization_id is not None}
    return Principal(user_id=claims.user_id, roles=roles, session=claims.session, expires_at=claims.expires_at)


def with_roles_as_they_are(principal: Principal) -> Principal:
    """The same user, after their memberships have changed."""
    assert principal.user_id is not None
    with operator():
        memberships = Membership.objects.filter(user_id=principal.user_id)
        return replace(principal, roles=dict(memberships.values_list("organization_id", "role")))


def sole_organization(actor: Principal) -> UUID:
    """The organization that a request means which names none. Raises Invalid with ORGANIZATION_REQUIRED."""
    if len(actor.organizations) != 1:
        raise Invalid(
            "You belong to several organizations: say which with organizationId.",
            code="ORGANIZATION_REQUIRED",
            field="organizationId",
        )
    return next(iter(actor.organizations))
