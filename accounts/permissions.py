"""Which role may do what: one table, used by actions, admin, and documentation alike."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

from accounts.models import Role
from common.errors import NotAllowed, NotFound, NotSignedIn
from common.tenancy import Principal


class Permission(StrEnum):
    UPLOAD = "upload a file"
    PROCESS_DATASET = "make and cancel dataset versions"
    START_RUN = "start training runs"
    CANCEL_RUN = "cancel training runs"
    PREDICT = "ask an adapter"


_WORK = frozenset(Permission)
ROLES: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _WORK,
    Role.ADMIN: _WORK,
    Role.MEMBER: _WORK,
    Role.VIEWER: frozenset(),
}


def authorize(actor: Principal, permission: Permission, organization_id: UUID) -> None:
    """Raise NotSignedIn for nobody, NotFound for an outsider, and NotAllowed for a member whose role does not permit it."""
    if actor.user_id is None:
        raise NotSignedIn
    role = actor.roles.get(organization_id)
    if role is None:
        raise NotFound
    if permission not in ROLES[Role(role)]:
        raise NotAllowed(f"Your role in this organization ({role}) does not allow you to {permission}.")
