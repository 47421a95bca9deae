"""Access and refresh tokens. simplejwt stays behind this module: nothing else imports it.

A session is a family of refresh tokens, each of which replaced the one before; its access tokens name it, and end with it.
Whatever makes or revokes tokens holds their user's row first: a rotation that is under way cannot outlast a revocation.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken

from accounts import audit
from accounts.models import RefreshToken, User
from common.errors import DomainError
from common.tenancy import operator

# Two tabs that refresh at the same moment are not a thief.
REUSE_GRACE = timedelta(seconds=5)
REFRESH_LIFETIME = timedelta(days=14)
SESSION_LIFETIME = timedelta(days=30)
"""However often it is gone on with: whoever took a session along has it for so long."""


class InvalidToken(DomainError):
    """Unknown, expired, used, or revoked: the answer does not say which."""

    code = "INVALID_TOKEN"

    def __init__(self, what_to_do: str = "Log in again.") -> None:
        super().__init__(f"This token is not valid (any more). {what_to_do}")


@dataclass(frozen=True)
class IssuedSession:
    access_token: str
    refresh_token: str
    expires_at: datetime
    user: User


@dataclass(frozen=True)
class AccessClaims:
    """Who an access token speaks for, in which session, and until when."""

    user_id: UUID
    session: UUID
    expires_at: datetime


class _AccessToken(AccessToken):
    """simplejwt's, which checks some claims only where they are there."""

    CLAIMS = frozenset({"exp", "nbf", "iat", "iss", "aud", "jti", "token_type", "sub", "sid"})

    def verify(self) -> None:
        super().verify()
        if not self.payload.keys() >= self.CLAIMS:
            raise TokenError("A claim is missing.")


def issue_session(user: User, before: RefreshToken | None = None) -> IssuedSession:
    """A new access token and a refresh token, of the session of the token `before`, or of a new one. In an operator scope."""
    now = timezone.now()
    family, begun_at = (before.family, before.begun_at) if before else (uuid4(), now)
    access: Any = _AccessToken.for_user(user)
    access["nbf"] = access["iat"]
    access["sid"] = str(family)
    refresh = secrets.token_urlsafe(32)
    RefreshToken.objects.create(
        user=user,
        family=family,
        token_sha256=sha256_of(refresh),
        begun_at=begun_at,
        expires_at=min(now + REFRESH_LIFETIME, begun_at + SESSION_LIFETIME),
    )
    return IssuedSession(str(access), refresh, _moment(access["exp"]), user)


def read(access_token: str) -> AccessClaims:
    """What a token says; whether its session goes on is not looked up. Raises InvalidToken."""
    claims, begins_at = _signed(access_token)
    now, leeway = timezone.now(), timedelta(seconds=float(settings.SIMPLE_JWT["LEEWAY"]))  # type: ignore[arg-type]
    if not begins_at - leeway <= now < claims.expires_at + leeway:
        raise InvalidToken
    return claims


@lru_cache(maxsize=512)  # of those who ask just now, a kilobyte each: one more costs a fiftieth of a request
def _signed(access_token: str) -> tuple[AccessClaims, datetime]:
    """What a token says, and when it begins to hold, whatever the time is now: its signature stays what it is.

    Only those are kept that are right: whoever tries others out displaces nobody's.
    """
    try:
        token: Any = _AccessToken(access_token)  # type: ignore[arg-type]
        claims = AccessClaims(UUID(token["sub"]), UUID(token["sid"]), _moment(token["exp"]))
        return claims, _moment(max(token["iat"], token["nbf"]))
    except (TokenError, ValueError, TypeError, AttributeError):
        raise InvalidToken from None


def rotate(refresh_token: str) -> IssuedSession:
    """Exchange a refresh token for a new pair; one that was used before revokes its family. Raises InvalidToken."""
    with operator():
        exchanged = _exchanged(refresh_token)
    if exchanged is None:  # out here, where a revocation is committed
        raise InvalidToken
    return exchanged


def _exchanged(refresh_token: str) -> IssuedSession | None:
    token = RefreshToken.objects.filter(token_sha256=sha256_of(refresh_token)).first()
    user = hold(User.objects.filter(pk=token.user_id, is_active=True)) if token else None
    if token is None or user is None:
        return None
    now = timezone.now()
    if RefreshToken.objects.live().filter(pk=token.pk, used_at=None).update(used_at=now):
        return issue_session(user, token)
    is_reused = token.used_at is not None and now - token.used_at > REUSE_GRACE
    if is_reused and _end(token.family):
        audit.record(audit.PLATFORM, actor="nobody", action="session.reuse", target=f"user:{user.pk}")
    return None


def revoke(refresh_token: str) -> None:
    """End the session that a refresh token belongs to, also one that was used; an unknown one belongs to none."""
    with operator():
        token = RefreshToken.objects.filter(token_sha256=sha256_of(refresh_token)).first()
        if token and hold(User.objects.filter(pk=token.user_id)) and _end(token.family):
            audit.record(audit.PLATFORM, actor=f"user:{token.user_id}", action="session.end")


def _end(family: UUID) -> bool:
    """Whether the session went on until now."""
    return bool(RefreshToken.objects.filter(family=family, revoked_at=None).update(revoked_at=timezone.now()))


def revoke_all(user: User, *, but: UUID | None = None) -> None:
    """End all sessions of `user`, save one, in the caller's transaction."""
    hold(User.objects.filter(pk=user.pk))
    sessions = RefreshToken.objects.filter(user=user, revoked_at=None)
    if but:
        sessions = sessions.exclude(family=but)
    sessions.update(revoked_at=timezone.now())


def hold(users: QuerySet[User]) -> User | None:
    """The one user, as they are now and until the transaction ends; rows that refer to them may come and go."""
    return users.select_for_update(no_key=True).first()


def sha256_of(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _moment(epoch_s: int) -> datetime:
    return datetime.fromtimestamp(epoch_s, tz=UTC)
