"""What operators do to accounts. They run in the caller's scope: the admin's, which sees all organizations."""

from __future__ import annotations

from django.contrib.auth import SESSION_KEY
from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from accounts import audit, mailed_tokens, tokens
from accounts.actions.organizations import take_what_they_gave
from accounts.actions.passwords import RESET_PASSWORD
from accounts.models import Membership, User
from common.errors import Invalid
from common.tenancy import Principal


@transaction.atomic
def lock_user(*, actor: Principal, user: User) -> None:
    """Let nobody in as `user`, until the account is unlocked: sessions, keys, invitations, and resets end. Raises Invalid for oneself."""
    if actor.user_id == user.pk:
        raise Invalid("This is you: somebody else has to lock your account.", code="OWN_ACCOUNT")
    User.objects.filter(pk=user.pk).update(is_active=False)
    _end_sessions(user)
    mailed_tokens.void(RESET_PASSWORD, user.email)
    # held, so that a key or an invitation that is just being made comes before or not at all
    for member in Membership.objects.filter(user=user).order_by("pk").select_for_update():
        take_what_they_gave(actor, member.organization_id, user.pk, None)
    audit.record(audit.PLATFORM, actor=actor.name, action="user.lock", target=f"user:{user.pk}")


@transaction.atomic
def unlock_user(*, actor: Principal, user: User) -> None:
    """Let `user` in again: what was signed in before stays signed out."""
    User.objects.filter(pk=user.pk).update(is_active=True)
    audit.record(audit.PLATFORM, actor=actor.name, action="user.unlock", target=f"user:{user.pk}")


@transaction.atomic
def sign_out_everywhere(*, actor: Principal, user: User) -> None:
    """End all sessions of `user`, with the API and in the admin, who may log in again."""
    _end_sessions(user)
    audit.record(audit.PLATFORM, actor=actor.name, action="user.sign_out", target=f"user:{user.pk}")


def _end_sessions(user: User) -> None:
    tokens.revoke_all(user)
    for session in Session.objects.filter(expire_date__gt=timezone.now()):  # operators alone have one
        if session.get_decoded().get(SESSION_KEY) == str(user.pk):
            session.delete()
