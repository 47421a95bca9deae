"""Passwords: changed by whoever knows the present one, and set anew by whoever reads the mail of the address."""

from __future__ import annotations

from django.db import transaction

from accounts import audit, mailed_tokens, mails, throttles, tokens
from accounts.credentials import confirmed, set_password, usable_address, wrong_password
from accounts.models import MailedToken, User
from common.tenancy import Principal, operator

RESET_PASSWORD = MailedToken.Purpose.RESET_PASSWORD


def change_password(*, actor: Principal, current_password: str, new_password: str) -> None:
    """Set another password, and end all sessions but the actor's.

    Raises NotSignedIn for whoever is no user, WrongCredentials, TooManyAttempts, and Invalid with WEAK_PASSWORD.
    """
    user = confirmed(actor, current_password, "currentPassword")
    before = user.password
    set_password(user, new_password, "newPassword")
    with operator():
        unchanged = User.objects.filter(pk=user.pk, password=before, is_active=True)
        if not unchanged.update(password=user.password):
            raise wrong_password("currentPassword")
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
        # before the token, as whoever locks them does, who leaves none behind that was asked for meanwhile
        known = tokens.hold(User.objects.filter(email=address, is_active=True))
        token = mailed_tokens.issue(RESET_PASSWORD, address)
        before = transaction.savepoint()
        mails.offer_reset(address, token)
        if known:
            transaction.savepoint_commit(before)
        else:
            transaction.savepoint_rollback(before)
        audit.record(audit.PLATFORM, actor="nobody", action="password.request_reset", target=audit.named(known))


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
        unchanged = User.objects.filter(pk=user.pk, email=address, is_active=True)
        if not unchanged.update(password=user.password, email_verified=True):
            raise tokens.InvalidToken(mailed_tokens.ASK_AGAIN)
        mailed_tokens.use(RESET_PASSWORD, token)
        tokens.revoke_all(user)
        mails.tell_of_new_password(user)
        audit.record(audit.PLATFORM, actor=f"user:{user.pk}", action="password.reset")
