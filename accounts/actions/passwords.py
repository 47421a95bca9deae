"""Passwords: changed by whoever knows the present one, and set anew by whoever reads the mail of the address."""

from __future__ import annotations

from django.db import transaction

from accounts import audit, mailed_tokens, mails, throttles, tokens
from accounts.credentials import WrongCredentials, is_right, set_password, usable_address
from accounts.models import MailedToken, User
from common.errors import NotSignedIn
from common.tenancy import Principal, operator

RESET_PASSWORD = MailedToken.Purpose.RESET_PASSWORD


def change_password(*, actor: Principal, current_password: str, new_password: str) -> None:
    """Set another password, and end all sessions but the actor's.

    Raises NotSignedIn for whoever is no user, WrongCredentials, TooManyAttempts, and Invalid with WEAK_PASSWORD.
    """
    user = User.objects.filter(pk=actor.user_id, is_active=True).first() if actor.user_id else None
    if user is None:
        raise NotSignedIn
    throttles.password_tried(user.email)
    before = user.password
    if not is_right(current_password, user):
        raise _wrong_password()
    set_password(user, new_password, "newPassword")
    with operator():
        unchanged = User.objects.filter(pk=user.pk, password=before, is_active=True)
        if not unchanged.update(password=user.password):
            raise _wrong_password()
        tokens.revoke_all(user, but=actor.session)
        mailed_tokens.void(RESET_PASSWORD, user.email)
        mails.tell_of_new_password(user)
        audit.record(audit.PLATFORM, actor=actor.name, action="password.change")


def request_password_reset(*, email: str) -> None:
    """Mail a token to the address, where it has an account.

    Where it has none the mail is worded and written all the same, and then taken back: the answer and its time do not
    tell. Raises TooManyAttempts, and Invalid with INVALID_EMAIL.
    """
    address = usable_address(email)
    throttles.mail_asked_for(address)
    with operator():
        is_known = User.objects.filter(email=address, is_active=True).exists()
        token = mailed_tokens.issue(RESET_PASSWORD, address)
        before = transaction.savepoint()
        mails.offer_reset(address, token)
        if is_known:
            transaction.savepoint_commit(before)
        else:
            transaction.savepoint_rollback(before)


def reset_password(*, token: str, new_password: str) -> None:
    """Set another password with a token from the mail, and end all sessions. It shows that the address is theirs, too.

    Raises InvalidToken, TooManyAttempts, and Invalid with WEAK_PASSWORD, which leaves the token as it was.
    """
    throttles.token_tried()
    with operator():
        address = mailed_tokens.address_of(RESET_PASSWORD, token)
        user = User.objects.filter(email=address, is_active=True).first()
    if user is None:
        raise tokens.InvalidToken(mailed_tokens.ASK_AGAIN)
    set_password(user, new_password, "newPassword")  # takes a quarter of a second, so that nothing is held meanwhile
    with operator():
        mailed_tokens.use(RESET_PASSWORD, token)
        unchanged = User.objects.filter(pk=user.pk, email=address, is_active=True)
        if not unchanged.update(password=user.password, email_verified=True):
            raise tokens.InvalidToken(mailed_tokens.ASK_AGAIN)
        tokens.revoke_all(user)
        mails.tell_of_new_password(user)
        audit.record(audit.PLATFORM, actor=f"user:{user.pk}", action="password.reset")


def _wrong_password() -> WrongCredentials:
    return WrongCredentials("The current password is not right.", field="currentPassword")
