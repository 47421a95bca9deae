"""What people ask to be deleted: an organization that they own, and their own account."""

from __future__ import annotations

from django.db import transaction

from accounts import tokens
from accounts.actions.closing import close_account, close_organization, reopen_organization
from accounts.credentials import WrongCredentials, confirmed
from accounts.models import Organization, User
from accounts.permissions import Permission, authorize, authorize_look
from accounts.standing import with_role_held
from common.tenancy import Principal, operator


def delete_organization(*, actor: Principal, organization: Organization, password: str) -> Organization:
    """Close it, with the actor's password: it is deleted, with all that belongs to it, once the grace period is over.

    Raises NotAllowed, WrongCredentials, and OrganizationClosing.
    """
    authorize(actor, Permission.DELETE_ORGANIZATION, organization.pk)
    # takes a quarter of a second, so that nothing is held meanwhile, and stays in the log when it is wrong
    confirmed(actor, password, "password", log=organization.pk)
    with transaction.atomic():
        authorize(with_role_held(actor, organization.pk), Permission.DELETE_ORGANIZATION, organization.pk)
        return close_organization(actor=actor, organization=organization)


@transaction.atomic
def restore_organization(*, actor: Principal, organization: Organization) -> Organization:
    """Raises NotAllowed, and Invalid with NOT_CLOSING and GRACE_PERIOD_OVER."""
    authorize_look(with_role_held(actor, organization.pk), Permission.DELETE_ORGANIZATION, organization.pk)
    return reopen_organization(actor=actor, organization=organization)


def delete_account(*, actor: Principal, password: str) -> None:
    """Close one's own account, which a log-in within the grace period restores.

    Raises NotSignedIn for whoever is no user, WrongCredentials, and Invalid: STAFF_ACCOUNT, LAST_OWNER.
    """
    user = confirmed(actor, password, "password")
    with operator():
        if tokens.hold(User.objects.filter(pk=user.pk, password=user.password, is_active=True)) is None:
            raise WrongCredentials
        close_account(actor=actor, user=user)
