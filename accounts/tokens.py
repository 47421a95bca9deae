"""Access and refresh tokens. simplejwt stays behind this module: nothing else imports it."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.utils import timezone
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken

from accounts.models import RefreshToken, User
from common.errors import DomainError

# Two tabs that refresh at the same moment are not a thief.
REUSE_GRACE = timedelta(seconds=5)
REFRESH_LIFETIME = timedelta(days=14)


class InvalidToken(DomainError):
    """Unknown, expired, used, or revoked: the answer does not say which."""

    code = "INVALID_TOKEN"

    def __init__(self) -> None:
        super().__init__("This token is not valid (any more). Log in again.")


@dataclass(frozen=True)
class IssuedSession:
    access_token: str
    refresh_token: str
    expires_at: datetime
    user: User


def issue_session(user: User, family: UUID | None = None) -> IssuedSession:
    """A new access token and a refresh token of `family`, or of a new one."""
    access: Any = AccessToken.for_user(user)
    refresh = secrets.token_urlsafe(32)
    RefreshToken.objects.create(
        user=user,
        family=family or uuid4(),
        token_sha256=_sha256(refresh),
        expires_at=timezone.now() + REFRESH_LIFETIME,
    )
    expires_at = datetime.fromtimestamp(access["exp"], tz=timezone.get_current_timezone())
    return IssuedSession(str(access), refresh, expires_at, user)


def user_id_of(access_token: str) -> UUID:
    """Whose access token this is. Raises InvalidToken."""
    try:
        token: Any = AccessToken(access_token)  # type: ignore[arg-type]
        return UUID(token["sub"])
    except (TokenError, ValueError, KeyError, TypeError):
        raise InvalidToken from None


def rotate(refresh_token: str) -> IssuedSession:
    """Exchange a refresh token for a new pair; one that was used before revokes its family. Raises InvalidToken.

    Not to be called inside a transaction that a raise rolls back: the revocation has to stay.
    """
    now = timezone.now()
    token = RefreshToken.objects.select_related("user").filter(token_sha256=_sha256(refresh_token)).first()
    if token is None or not token.user.is_active:
        raise InvalidToken
    # columns of this one table only: with a join the UPDATE gets a sub-select, which a second one does not look at again
    unused = RefreshToken.objects.filter(pk=token.pk, used_at=None, revoked_at=None, expires_at__gt=now)
    if not unused.update(used_at=now):
        if token.used_at and now - token.used_at > REUSE_GRACE:
            RefreshToken.objects.filter(family=token.family, revoked_at=None).update(revoked_at=now)
        raise InvalidToken
    return issue_session(token.user, token.family)


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
