"""What people ask of their own accounts: to sign up, to show that an address is theirs, to sign in, go on, and sign out."""

from __future__ import annotations

from uuid import uuid4

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils.text import slugify

from accounts import audit, mailed_tokens, mails, throttles, tokens
from accounts.credentials import WrongCredentials, is_right, set_password, usable_address
from accounts.models import MailedToken, Membership, Organization, Role, User
from common.errors import DomainError
from common.tenancy import operator
from common.text import is_storable, plain_text

VERIFY_EMAIL = MailedToken.Purpose.VERIFY_EMAIL


class EmailTaken(DomainError):
    code = "EMAIL_TAKEN"


class EmailNotVerified(DomainError):
    code = "EMAIL_NOT_VERIFIED"

    def __init__(self) -> None:
        super().__init__("This address is not verified yet. Use the token in the mail that was sent there.")


def sign_up(
    *, email: str, password: str, name: str = "", organization_name: str | None = None
) -> tokens.IssuedSession | None:
    """A new user, owner of an organization of their own, with a session, and a mail to verify the address.

    Where addresses have to be verified there is no session, and a known address is told by mail alone. Raises Invalid,
    EmailTaken, and TooManyAttempts.
    """
    throttles.signed_up()
    user = User(email=usable_address(email), name=plain_text(name, "name", 150) if name.strip() else "")
    set_password(user, password, "password")
    title = (organization_name or "").strip() or f"{(user.name or user.email.partition('@')[0])[:100]}'s organization"
    title = plain_text(title, "organizationName", 150)
    organization = Organization(name=title, slug=f"{slugify(title)[:40] or 'organization'}-{uuid4().hex[:8]}")
    if settings.REQUIRE_VERIFIED_EMAIL:
        throttles.mail_asked_for(user.email)
        _answer_by_mail(user, organization)
        return None
    try:
        with operator():
            mails.ask_to_verify(user.email, _found(organization, user))
            return tokens.issue_session(user)
    except IntegrityError:
        message = "This address has an account already: log in, or use another one."
        raise EmailTaken(message, field="email") from None


def verify_email(*, token: str) -> None:
    """Note that the address of an account is its user's. Raises InvalidToken and TooManyAttempts."""
    throttles.token_tried()
    with operator():
        address = mailed_tokens.use(VERIFY_EMAIL, token)
        if not User.objects.filter(email=address, is_active=True).update(email_verified=True):
            raise tokens.InvalidToken(mailed_tokens.ASK_AGAIN)


def log_in(*, email: str, password: str) -> tokens.IssuedSession:
    """Raises WrongCredentials and TooManyAttempts, alike for known and unknown addresses, and EmailNotVerified."""
    throttles.password_tried(email)
    user = User.objects.filter(email=User.objects.normalize_email(email)).first() if is_storable(email) else None
    right = is_right(password, user)
    if user is None or not right or not user.is_active:
        with operator():
            audit.record(audit.PLATFORM, actor="nobody", action="session.refuse", target=_named(user))
        raise WrongCredentials
    if settings.REQUIRE_VERIFIED_EMAIL and not user.email_verified:
        _remind_to_verify(user)
        raise EmailNotVerified
    with operator():
        # the password may have changed since, and the account been locked, while the hash was compared
        held = tokens.hold(User.objects.filter(pk=user.pk, password=user.password, is_active=True))
        if held is None:
            raise WrongCredentials
        session = tokens.issue_session(held)
        audit.record(audit.PLATFORM, actor=_named(held), action="session.begin")
        return session


def refresh(*, refresh_token: str) -> tokens.IssuedSession:
    """Exchange a refresh token for a new session. Raises InvalidToken."""
    return tokens.rotate(refresh_token)


def log_out(*, refresh_token: str) -> None:
    """End the session of a refresh token, its access tokens included. An unknown token is none to complain about."""
    tokens.revoke(refresh_token)


def _found(organization: Organization, owner: User) -> str:
    """Save both, and return a token to verify the owner's address with. Raises IntegrityError for a known address."""
    owner.save(force_insert=True)
    organization.save(force_insert=True)
    Membership.objects.create(organization=organization, user=owner, role=Role.OWNER)
    return mailed_tokens.issue(VERIFY_EMAIL, owner.email)


def _answer_by_mail(user: User, organization: Organization) -> None:
    """Sign up, and have the address verified; where it has an account, only tell it so.

    As much is written then, under an address that nobody has, and taken back: the time does not tell which it was.
    """
    address = user.email
    try:
        with operator():
            is_known = User.objects.filter(email=address).exists()
            before = transaction.savepoint()
            user.email = f"{user.pk}@nobody.invalid" if is_known else address
            token = _found(organization, user)
            if is_known:
                transaction.savepoint_rollback(before)
                mails.tell_of_account(address)
            else:
                transaction.savepoint_commit(before)
                mails.ask_to_verify(address, token)
    except IntegrityError:  # another sign-up was quicker
        with operator():
            mails.tell_of_account(address)


def _remind_to_verify(user: User) -> None:
    """Another mail, once the token in the last one has expired."""
    with operator():
        if not mailed_tokens.is_waiting(VERIFY_EMAIL, user.email):
            mails.ask_to_verify(user.email, mailed_tokens.issue(VERIFY_EMAIL, user.email))


def _named(user: User | None) -> str:
    return f"user:{user.pk}" if user else "nobody"
