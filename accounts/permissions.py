"""Which role may do what: one table, used by actions, admin, and documentation alike."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from uuid import UUID

from accounts.roles import Role
from common.errors import DomainError, NotAllowed, NotFound, NotSignedIn
from common.tenancy import Principal


class Permission(StrEnum):
    UPLOAD = "upload a file"
    DELETE_UPLOAD = "delete uploads that no dataset was made from"
    PROCESS_DATASET = "make and cancel dataset versions"
    DELETE_DATASET = "delete datasets"
    START_RUN = "start training runs"
    CANCEL_RUN = "cancel training runs"
    MANAGE_ADAPTERS = "register, promote, and archive adapters"
    PREDICT = "ask an adapter"
    MANAGE_MEMBERS = "invite and remove people and change their roles"
    MANAGE_OWNERS = "make and unmake owners"
    MANAGE_KEYS = "make and revoke API keys"
    READ_AUDIT_LOG = "read the audit log"
    DELETE_ORGANIZATION = "delete the organization, and restore it"


_LOOK: frozenset[Permission] = frozenset()
_WORK = _LOOK | {
    Permission.UPLOAD,
    Permission.DELETE_UPLOAD,
    Permission.PROCESS_DATASET,
    Permission.START_RUN,
    Permission.CANCEL_RUN,
    Permission.MANAGE_ADAPTERS,
    Permission.PREDICT,
}
_ADMINISTER = _WORK | {
    Permission.DELETE_DATASET,
    Permission.MANAGE_MEMBERS,
    Permission.MANAGE_KEYS,
    Permission.READ_AUDIT_LOG,
}
_OWN = _ADMINISTER | {Permission.MANAGE_OWNERS, Permission.DELETE_ORGANIZATION}
FOR_PEOPLE = _OWN - _WORK - {Permission.DELETE_DATASET, Permission.READ_AUDIT_LOG}
"""What no API key may do, whatever its role: it would outlast whoever made it."""
ROLES: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _OWN,
    Role.ADMIN: _ADMINISTER,
    Role.MEMBER: _WORK,
    Role.VIEWER: _LOOK,
}


class OrganizationClosing(DomainError):
    """It is about to be deleted: what is in it may be looked at, and changes no more."""

    code = "ORGANIZATION_CLOSING"

    def __init__(self) -> None:
        super().__init__("This organization is about to be deleted. To go on, have an owner send restoreOrganization.")


def authorize(actor: Principal, permission: Permission, organization_id: UUID) -> None:
    """`authorize_look`, for what changes something: raise OrganizationClosing, too."""
    authorize_look(actor, permission, organization_id)
    refuse_closing(actor, organization_id)


def refuse_closing(actor: Principal, organization_id: UUID) -> None:
    """Raise OrganizationClosing where it was about to be deleted when the request began."""
    if organization_id in actor.closing:
        raise OrganizationClosing


def authorize_look(actor: Principal, permission: Permission, organization_id: UUID) -> None:
    """Raise NotSignedIn for nobody, NotFound for an outsider, and NotAllowed for a member whose role does not permit it."""
    if actor.is_nobody:
        raise NotSignedIn
    if actor.key_id is not None and permission in FOR_PEOPLE:
        raise NotAllowed(f"No API key may {permission}: sign in.")
    role = actor.roles.get(organization_id)
    if role is None:
        raise NotFound
    if permission not in ROLES[Role(role)]:
        raise NotAllowed(f"Your role in this organization ({role}) does not allow you to {permission}.")


def organizations_that_permit(principal: Principal, permission: Permission) -> list[UUID]:
    """Those in which the principal's role allows it, which for a key is not all that people's allow."""
    if principal.key_id is not None and permission in FOR_PEOPLE:
        return []
    return [organization_id for organization_id, role in principal.roles.items() if permission in ROLES[Role(role)]]


def roles_with(permission: Permission) -> list[Role]:
    return [role for role in Role if permission in ROLES[role]]


def authorize_role(actor: Principal, role: Role, organization_id: UUID) -> None:
    """Raise NotAllowed where `actor` may not give `role` to anybody: nobody hands out more than they have."""
    if not ROLES[role] <= ROLES[Role(actor.roles[organization_id])]:
        raise NotAllowed(f"Your role in this organization does not allow you to make anybody {role.label.upper()}.")


def table() -> str:
    """Who may do what, for people: Markdown."""

    def line(what: str, cells: Iterable[str]) -> str:
        return f"| {what} | " + " | ".join(cells) + " |"

    head = [
        line("", Role.values),
        line("---", ["---"] * len(Role.values)),
        line("see what there is", ["yes"] * len(Role.values)),
    ]
    return "\n".join(
        [*head, *(line(each, ["yes" if each in ROLES[role] else "" for role in Role]) for each in Permission)]
    )
