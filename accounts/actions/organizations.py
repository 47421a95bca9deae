"""What people ask of the organizations that they belong to: who is in it, and as what."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts import audit, throttles, tokens
from accounts.actions import keys
from accounts.credentials import usable_address
from accounts.models import Invitation, Membership, Organization, OrganizationStatus, Role
from accounts.permissions import OrganizationClosing, Permission, authorize, authorize_role, refuse_closing
from accounts.standing import with_role_held
from common.errors import Invalid, NotFound, NotSignedIn
from common.outbox import mail
from common.tenancy import Principal, operator

INVITATION_LIFETIME = timedelta(days=7)


@transaction.atomic
def invite_member(*, actor: Principal, organization: Organization, email: str, role: Role) -> None:
    """Ask somebody to join, by mail; a new invitation to the same address takes the place of the one before.

    The answer does not tell whether the address has an account. Raises NotAllowed, Invalid, and TooManyAttempts.
    """
    actor = with_role_held(actor, organization.pk)
    authorize(actor, Permission.MANAGE_MEMBERS, organization.pk)
    authorize_role(actor, role, organization.pk)
    email = usable_address(email)
    throttles.invited(organization.pk, email)
    # two invitations of one address must not both be the last
    Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
    if Membership.objects.filter(organization=organization, user__email=email).exists():
        raise Invalid("They belong to the organization already.", code="ALREADY_A_MEMBER", field="email")
    token = secrets.token_urlsafe(32)
    pending = Invitation.objects.filter(organization=organization, email=email, accepted_at=None)
    for before in pending:
        authorize_role(actor, Role(before.role), organization.pk)
    pending.delete()
    invitation = Invitation.objects.create(
        organization=organization,
        email=email,
        role=role,
        token_sha256=tokens.sha256_of(token),
        invited_by_id=actor.user_id,
        expires_at=timezone.now() + INVITATION_LIFETIME,
    )
    mail(
        event=f"invitation/{invitation.pk}",
        recipient=email,
        template="invitation",
        context={"organization": organization, "role": role.value, "token": token, "days": INVITATION_LIFETIME.days},
        organization_id=organization.pk,
    )
    audit.record(
        organization.pk, actor=actor.name, action="member.invite", target=f"invitation:{invitation.pk}", role=role.value
    )


@transaction.atomic
def withdraw_invitation(*, actor: Principal, invitation: Invitation) -> None:
    """Take back an invitation that nobody has accepted. Raises NotAllowed, also for one above one's own role, and NotFound."""
    organization_id = invitation.organization_id
    actor = with_role_held(actor, organization_id)
    authorize(actor, Permission.MANAGE_MEMBERS, organization_id)
    authorize_role(actor, Role(invitation.role), organization_id)
    withdrawn, _ = Invitation.objects.filter(pk=invitation.pk).pending().delete()
    if not withdrawn:  # it has just been accepted
        raise NotFound
    _record_withdrawal(actor, invitation)


def _record_withdrawal(actor: Principal, invitation: Invitation) -> None:
    target = f"invitation:{invitation.pk}"
    audit.record(invitation.organization_id, actor=actor.name, action="invitation.withdraw", target=target)


def accept_invitation(*, actor: Principal, token: str) -> Membership:
    """Join the organization that the token invites to; whoever belongs to it already stays what they are.

    The token alone counts, not the address that it was sent to: people have several. Raises NotSignedIn for whoever is
    no user, Invalid with INVALID_TOKEN, and TooManyAttempts.
    """
    if actor.user_id is None:
        raise NotSignedIn
    throttles.token_tried()
    with operator():
        waiting = (
            Invitation.objects.select_for_update(of=("self",))
            .select_related("organization")
            .filter(token_sha256=tokens.sha256_of(token), accepted_at=None)
        )
        invitation = waiting.filter(expires_at__gt=timezone.now()).first()
        if invitation is None:
            raise Invalid(
                "This invitation is not valid (any more): ask for another one.", code="INVALID_TOKEN", field="token"
            )
        if invitation.organization.status is OrganizationStatus.CLOSING:
            raise OrganizationClosing
        membership, is_new = Membership.objects.get_or_create(
            organization_id=invitation.organization_id, user_id=actor.user_id, defaults={"role": invitation.role}
        )
        Invitation.objects.filter(pk=invitation.pk).update(accepted_at=timezone.now())
        if is_new:
            audit.record(
                invitation.organization_id,
                actor=actor.name,
                action="member.join",
                target=f"invitation:{invitation.pk}",
                role=membership.role,
            )
        return membership


@transaction.atomic
def change_member_role(*, actor: Principal, organization: Organization, user_id: UUID, role: Role) -> Membership:
    """Raises NotAllowed, NotFound for somebody who is no member, and Invalid with LAST_OWNER."""
    authorize(actor, Permission.MANAGE_MEMBERS, organization.pk)
    members = _held(actor, organization, user_id)
    actor = members.actor
    authorize(actor, Permission.MANAGE_MEMBERS, organization.pk)
    authorize_role(actor, role, organization.pk)
    authorize_role(actor, Role(members.target.role), organization.pk)
    if role is not Role.OWNER:
        members.leave_an_owner()
    before, members.target.role = members.target.role, role
    members.target.save(update_fields=["role"])
    take_what_they_gave(actor, organization.pk, user_id, role)
    audit.record(
        organization.pk,
        actor=actor.name,
        action="member.change_role",
        target=f"user:{user_id}",
        before=before,
        after=role.value,
    )
    return members.target


@transaction.atomic
def remove_member(*, actor: Principal, organization: Organization, user_id: UUID) -> None:
    """Remove somebody, or leave. Raises NotAllowed, NotFound, and Invalid with LAST_OWNER."""
    refuse_closing(actor, organization.pk)
    leaves = actor.user_id is not None and actor.user_id == user_id
    if not leaves:
        authorize(actor, Permission.MANAGE_MEMBERS, organization.pk)
    members = _held(actor, organization, user_id)
    if not leaves:
        authorize(members.actor, Permission.MANAGE_MEMBERS, organization.pk)
        authorize_role(members.actor, Role(members.target.role), organization.pk)
    members.leave_an_owner()
    members.target.delete()
    take_what_they_gave(actor, organization.pk, user_id, None)
    audit.record(organization.pk, actor=actor.name, action="member.remove", target=f"user:{user_id}")


@dataclass(frozen=True)
class _Held:
    """Whom a change is about, and who makes it, as they are until the transaction ends."""

    actor: Principal
    target: Membership
    owners: frozenset[UUID]
    """Those whose accounts go on."""

    def leave_an_owner(self) -> None:
        """Raise Invalid where the target is the last one."""
        if self.target.role == Role.OWNER and not self.owners - {self.target.user_id}:
            message = "An organization keeps an owner: make somebody else one first."
            raise Invalid(message, code="LAST_OWNER", field="userId")


def _held(actor: Principal, organization: Organization, user_id: UUID) -> _Held:
    """All rows are locked at once and in one order: two who leave, or change each other, wait. Raises NotFound."""
    of_concern = Q(role=Role.OWNER) | Q(user_id=user_id) | Q(user_id=actor.user_id)
    # whose account goes on is read after the wait: another owner may have closed theirs meanwhile
    rows = Membership.objects.filter(of_concern, organization=organization).prefetch_related("user").order_by("pk")
    members = {member.user_id: member for member in rows.select_for_update()}
    if user_id not in members or (actor.user_id is not None and actor.user_id not in members):
        raise NotFound
    if actor.user_id is not None:
        actor = replace(actor, roles={**actor.roles, organization.pk: members[actor.user_id].role})
    owners = frozenset(member.user_id for member in members.values() if member.is_lasting_owner)
    return _Held(actor, members[user_id], owners)


def take_what_they_gave(actor: Principal, organization_id: UUID, user_id: UUID, role: Role | None) -> None:
    """Keys and invitations of somebody who may not give them any more would be a way back in."""
    keys.revoke_above(organization_id, user_id, role, actor=actor)
    for invitation in Invitation.objects.filter(organization_id=organization_id, invited_by_id=user_id).pending():
        if Invitation.objects.filter(pk=invitation.pk).pending().delete()[0]:
            _record_withdrawal(actor, invitation)
