"""Closing: from the day on which somebody asks for a deletion to the day on which it is done, everything can be restored.

Who may ask is decided elsewhere: these run in the caller's scope, which for accounts has to be an operator's.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

from django.conf import settings
from django.db import connection, transaction

from accounts import audit, mails, tokens
from accounts.actions.organizations import take_what_they_gave
from accounts.models import Membership, Organization, Role, User
from accounts.permissions import OrganizationClosing
from common.clock import ServerClock
from common.errors import Invalid
from common.tenancy import Principal


@transaction.atomic
def close_organization(
    *, actor: Principal, organization: Organization, closes_at: datetime | None = None
) -> Organization:
    """Have it deleted once the grace period is over, and tell its members. Raises OrganizationClosing."""
    closes_at = closes_at or end_of_grace()
    if not Organization.objects.filter(pk=organization.pk, closes_at=None).update(closes_at=closes_at):
        raise OrganizationClosing
    organization.closes_at = closes_at
    mails.tell_members(organization, "organization_closing")
    audit.record(
        organization.pk, actor=actor.name, action="organization.close", target=f"organization:{organization.pk}"
    )
    return organization


@transaction.atomic
def reopen_organization(*, actor: Principal, organization: Organization) -> Organization:
    """Leave it as it is after all, and tell its members. Raises Invalid with NOT_CLOSING and GRACE_PERIOD_OVER."""
    closing = Organization.objects.filter(pk=organization.pk).exclude(closes_at=None)
    if not closing.filter(closes_at__gt=ServerClock()).update(closes_at=None):
        raise _too_late() if closing.exists() else Invalid("It is not about to be deleted.", code="NOT_CLOSING")
    organization.closes_at = None
    mails.tell_members(organization, "organization_restored")
    audit.record(
        organization.pk, actor=actor.name, action="organization.restore", target=f"organization:{organization.pk}"
    )
    return organization


@transaction.atomic
def close_account(*, actor: Principal, user: User) -> None:
    """Have it deleted once the grace period is over, with the organizations that nobody else belongs to.

    Sessions, keys, and invitations end at once. Raises Invalid: ACCOUNT_CLOSING, STAFF_ACCOUNT, and LAST_OWNER where
    others would be left without an owner.
    """
    held = tokens.hold(User.objects.filter(pk=user.pk, closes_at=None))
    if held is None:
        raise Invalid("This account is about to be deleted already.", code="ACCOUNT_CLOSING")
    if held.is_staff or held.is_superuser:
        message = "Operators' accounts are not deleted: have another operator take the staff status away first."
        raise Invalid(message, code="STAFF_ACCOUNT")
    alone, shared = _organizations_of(held)
    closes_at = end_of_grace()
    User.objects.filter(pk=held.pk).update(closes_at=closes_at)
    tokens.revoke_all(held)
    for organization in [*alone, *shared]:
        take_what_they_gave(actor, organization.pk, held.pk, None)
    for organization in alone:
        if organization.closes_at is None:
            close_organization(actor=actor, organization=organization, closes_at=closes_at)
    mails.tell_of_account_closing(held.email, closes_at)
    audit.record(audit.PLATFORM, actor=actor.name, action="account.close", target=f"user:{held.pk}")


@transaction.atomic
def reopen_account(*, actor: Principal, user: User) -> None:
    """Leave it after all, and the organizations that closed with it. What was signed in or revoked stays so.

    Raises Invalid with NOT_CLOSING and GRACE_PERIOD_OVER.
    """
    held = tokens.hold(User.objects.filter(pk=user.pk).exclude(closes_at=None))
    if held is None:
        raise Invalid("It is not about to be deleted.", code="NOT_CLOSING")
    if not User.objects.filter(pk=held.pk, closes_at__gt=ServerClock()).update(closes_at=None):
        raise _too_late()
    closed_with_it = Organization.objects.filter(memberships__user=held, closes_at=held.closes_at)
    for organization in closed_with_it.order_by("pk"):
        reopen_organization(actor=actor, organization=organization)
    mails.tell_of_account_restored(held.email)
    audit.record(audit.PLATFORM, actor=actor.name, action="account.restore", target=f"user:{held.pk}")


def end_of_grace() -> datetime:
    """When what is closed now is deleted, by PostgreSQL's clock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp() + make_interval(days => %s)", [settings.CLOSING_DAYS])
        moment: datetime = cursor.fetchone()[0]
    return moment


def _organizations_of(user: User) -> tuple[list[Organization], list[Organization]]:
    """Those that nobody else belongs to, and the others, whose members stay what they are until the transaction ends.

    Raises Invalid with LAST_OWNER.
    """
    theirs = Membership.objects.filter(user=user).values("organization_id")
    # whose account goes on is read after the wait: another owner may have closed theirs meanwhile
    rows = Membership.objects.filter(organization_id__in=theirs).prefetch_related("organization", "user")
    members: defaultdict[Organization, list[Membership]] = defaultdict(list)
    for member in rows.order_by("pk").select_for_update():
        members[member.organization].append(member)
    alone = [organization for organization, its in members.items() if len(its) == 1]
    orphaned = [
        organization.name
        for organization, its in members.items()
        if len(its) > 1 and organization.closes_at is None and _only_owner(its, user)
    ]
    if orphaned:
        names = ", ".join(f'"{name}"' for name in sorted(orphaned))
        message = f"Others would be left without an owner in {names}: make somebody else one, or delete it, first."
        raise Invalid(message, code="LAST_OWNER")
    return alone, [organization for organization in members if organization not in alone]


def _only_owner(members: list[Membership], user: User) -> bool:
    owners = {member.user_id for member in members if member.is_lasting_owner}
    owned = any(member.user_id == user.pk and member.role == Role.OWNER for member in members)
    return owned and not owners - {user.pk}


def _too_late() -> Invalid:
    return Invalid("The grace period is over: it is being deleted.", code="GRACE_PERIOD_OVER")
