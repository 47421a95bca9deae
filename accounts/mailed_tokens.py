"""Tokens that are sent by mail: 256 random bits, stored as their hash, good for one use within an hour."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.db.models import QuerySet
from django.utils import timezone

from accounts.models import MailedToken
from accounts.tokens import InvalidToken, sha256_of

LIFETIME = timedelta(hours=1)
ASK_AGAIN = "Ask for another mail: each token works once, for an hour, and until the next one."


def issue(purpose: MailedToken.Purpose, address: str) -> str:
    """A new token; one of the same purpose that was sent to the address before is void. In an operator scope."""
    token = secrets.token_urlsafe(32)
    # one statement, so that of two at once one prevails
    MailedToken.objects.bulk_create(
        [
            MailedToken(
                purpose=purpose,
                address=address,
                token_sha256=sha256_of(token),
                expires_at=timezone.now() + LIFETIME,
            )
        ],
        update_conflicts=True,
        unique_fields=["address", "purpose"],
        update_fields=["token_sha256", "expires_at"],
    )
    return token


def is_waiting(purpose: MailedToken.Purpose, address: str) -> bool:
    """Whether a token that was sent to the address can still be used."""
    return _valid(purpose).filter(address=address).exists()


def address_of(purpose: MailedToken.Purpose, token: str) -> str:
    """The address that the token was sent to; the token stays. Raises InvalidToken."""
    mailed = _valid(purpose).filter(token_sha256=sha256_of(token)).first()
    if mailed is None:
        raise InvalidToken(ASK_AGAIN)
    return mailed.address


def use(purpose: MailedToken.Purpose, token: str) -> str:
    """Use the token up, in the caller's transaction, and return the address. Raises InvalidToken."""
    address = address_of(purpose, token)
    used, _ = _valid(purpose).filter(token_sha256=sha256_of(token)).delete()
    if not used:  # another request was quicker
        raise InvalidToken(ASK_AGAIN)
    return address


def void(purpose: MailedToken.Purpose, address: str) -> None:
    """Have no token that was sent to the address be of use. In an operator scope."""
    MailedToken.objects.filter(purpose=purpose, address=address).delete()


def _valid(purpose: MailedToken.Purpose) -> QuerySet[MailedToken]:
    return MailedToken.objects.filter(purpose=purpose, expires_at__gt=timezone.now())
