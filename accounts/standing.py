"""Whether people and keys still are who they were when they connected, or when their request began."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from accounts.models import ApiKey, Membership, RefreshToken, User
from common.errors import NotFound, NotSignedIn
from common.tenancy import Principal, operator


def still_stand(principals: Sequence[Principal]) -> list[bool]:
    """For each whether its session or key is live, its account active, and its roles what they were; it may have got more.

    Three queries, however many there are.
    """
    sessions = {principal.session for principal in principals if principal.session}
    users = {principal.user_id for principal in principals if principal.user_id}
    keys = {principal.key_id for principal in principals if principal.key_id}
    with operator():
        live = set(RefreshToken.objects.live().filter(family__in=sessions).values_list("family", flat=True))
        active = User.objects.filter(pk__in=users, is_active=True)
        memberships = list(active.values_list("pk", "memberships__organization_id", "memberships__role"))
        working = list(ApiKey.objects.working().filter(pk__in=keys).values_list("pk", "organization_id", "role"))

    roles: defaultdict[UUID, dict[UUID, str]] = defaultdict(dict)
    for who, organization_id, role in [*memberships, *working]:
        roles[who][organization_id] = role

    def stands(principal: Principal) -> bool:
        who = principal.user_id or principal.key_id
        in_session = principal.session is None or principal.session in live
        return in_session and who is not None and who in roles and principal.roles.items() <= roles[who].items()

    return [stands(principal) for principal in principals]


def with_role_held(actor: Principal, organization_id: UUID) -> Principal:
    """The actor with the role that they have now, which nobody changes before the caller's transaction ends.

    Raises NotFound for a user who has left meanwhile, and NotSignedIn for one whose account was locked or closed.
    """
    if actor.user_id is None:
        return actor
    membership = Membership.objects.filter(organization_id=organization_id, user_id=actor.user_id)
    role = membership.select_for_update().values_list("role", flat=True).first()
    if role is None:
        raise NotFound
    if not User.objects.filter(pk=actor.user_id, is_active=True, closes_at=None).exists():  # as it is after the wait
        raise NotSignedIn
    return replace(actor, roles={**actor.roles, organization_id: role})
