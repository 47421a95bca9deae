"""Who a request speaks for."""

from __future__ import annotations

from uuid import UUID

from accounts import tokens
from accounts.models import User
from common.errors import Invalid
from common.tenancy import Principal, operator


def principal_of(access_token: str) -> Principal:
    """Who a token speaks for, with their role in each organization as it is now. Raises InvalidToken."""
    user_id = tokens.user_id_of(access_token)
    with operator():
        user = User.objects.filter(pk=user_id, is_active=True)
        found = list(user.values_list("memberships__organization_id", "memberships__role"))
    if not found:
        raise tokens.InvalidToken
    roles: dict[UUID, str] = {organization_id: role for organization_id, role in found if organization_id is not None}
    return Principal(user_id=user_id, roles=roles)


def sole_organization(actor: Principal) -> UUID:
    """The organization that a request means which names none. Raises Invalid with ORGANIZATION_REQUIRED."""
    if len(actor.organizations) != 1:
        raise Invalid(
            "You belong to several organizations: say which with organizationId.",
            code="ORGANIZATION_REQUIRED",
            field="organizationId",
        )
    return next(iter(actor.organizations))
