"""Who a request speaks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from accounts import tokens
from accounts.actions.keys import MARK, NOTED_EVERY
from accounts.models import ApiKey, Membership
from common.errors import Invalid
from common.tenancy import Principal, operator, selected_by_operator

OF_SESSION = """\
SELECT membership.organization_id, membership.role, organization.closes_at, quota.requests_per_minute
FROM accounts_user AS person
LEFT JOIN accounts_membership AS membership ON membership.user_id = person.id
LEFT JOIN accounts_organization AS organization ON organization.id = membership.organization_id
LEFT JOIN accounts_quota AS quota ON quota.organization_id = organization.id
WHERE person.id = %(user)s AND person.is_active AND EXISTS (
    SELECT FROM accounts_refreshtoken AS token
    WHERE token.family = %(session)s AND token.user_id = person.id
      AND token.revoked_at IS NULL AND token.expires_at > %(now)s
)"""
"""Asked at the beginning of each request: the ORM takes five times as long to word this as PostgreSQL to answer it."""
OF_MEMBERSHIPS = ("organization_id", "role", "organization__closes_at", "organization__quota__requests_per_minute")


def principal_of(bearer: str) -> Principal:
    """Who an access token or an API key speaks for, with the role in each organization as it is now. Raises InvalidToken."""
    return _of_key(bearer) if bearer.startswith(MARK) else _of_access_token(bearer)


def _of_key(secret: str) -> Principal:
    with operator():
        keys = ApiKey.objects.working().annotate(
            closes_at=F("organization__closes_at"), requests_per_minute=F("organization__quota__requests_per_minute")
        )
        key = keys.filter(secret_sha256=tokens.sha256_of(secret)).first()
        if key is None:
            raise tokens.InvalidToken
        now = timezone.now()
        if key.last_used_at is None or now - key.last_used_at > NOTED_EVERY:
            ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
    standing = _of_memberships([(key.organization_id, key.role, key.closes_at, key.requests_per_minute)])
    return Principal(user_id=None, key_id=key.pk, **standing)


def _of_access_token(access_token: str) -> Principal:
    claims = tokens.read(access_token)
    who = {"user": claims.user_id, "session": claims.session, "now": timezone.now()}
    found = selected_by_operator(OF_SESSION, who)
    if not found:
        raise tokens.InvalidToken
    return Principal(
        user_id=claims.user_id, session=claims.session, expires_at=claims.expires_at, **_of_memberships(found)
    )


def with_roles_as_they_are(principal: Principal) -> Principal:
    """The same user, after their memberships have changed."""
    assert principal.user_id is not None
    with operator():
        memberships = Membership.objects.filter(user_id=principal.user_id)
        standing = _of_memberships(memberships.values_list(*OF_MEMBERSHIPS))
    return replace(principal, **standing)


def _of_memberships(rows: Iterable[tuple[UUID | None, str, datetime | None, int | None]]) -> dict[str, Any]:
    """What a Principal has of its organizations: roles, those about to be deleted, and the highest rate set for any of them.

    One without a rate of its own does not count there: everybody has one, of their own. A user of none has one empty row.
    """
    known = [row for row in rows if row[0] is not None]
    rates = [rate for _, _, _, rate in known if rate is not None]
    return {
        "roles": {organization_id: role for organization_id, role, _, _ in known},
        "closing": frozenset(organization_id for organization_id, _, closes_at, _ in known if closes_at is not None),
        "requests_per_minute": max(rates, default=settings.REQUESTS_PER_MINUTE),
    }


def sole_organization(actor: Principal) -> UUID:
    """The organization that a request means which names none. Raises Invalid with ORGANIZATION_REQUIRED."""
    if len(actor.organizations) != 1:
        raise Invalid(
            "You belong to several organizations: say which with organizationId.",
            code="ORGANIZATION_REQUIRED",
            field="organizationId",
        )
    return next(iter(actor.organizations))
