"""Tickets: how the web process tells the inference server, which has no database, what one request may do.

A ticket is a JWT, HS256 with the installation's secret, valid for a minute.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import jwt

LIFETIME_S = 60
MAX_WAIT_S = 600
"""The longest that a request may say it waits for its turn."""
LEEWAY_S = 5
ISSUER = "platform"
AUDIENCE = "inference"
STATUS_AUDIENCE = "inference-status"


class TicketRefused(Exception):
    """Not a ticket of ours, not for this base model, or no longer valid; the reasons are not told apart."""


@dataclass(frozen=True)
class Ticket:
    """Permission to use one adapter, or none, of one base model on an organization's behalf."""

    organization: str
    base: str
    max_new_tokens: int
    adapter_key: str | None = None
    """The storage key that the adapter's files are under."""
    adapter_digest: str | None = None


def issue(ticket: Ticket, secret: str) -> str:
    claims = {
        "organization": ticket.organization,
        "base": ticket.base,
        "adapter_key": ticket.adapter_key,
        "adapter_digest": ticket.adapter_digest,
        "limits": {"max_new_tokens": ticket.max_new_tokens},
    }
    return _signed(AUDIENCE, secret, claims)


def issue_status(secret: str) -> str:
    """A ticket to see what the server holds and does, of all organizations: for operators, and good for nothing else."""
    return _signed(STATUS_AUDIENCE, secret, {})


def verify_status(token: object, secret: str) -> None:
    """Raises TicketRefused for whatever `issue_status` has not made."""
    _claims(token, secret, STATUS_AUDIENCE)


def verify(token: object, secret: str, base: str) -> Ticket:
    """Return what `token` permits on the base model named `base`. Raises TicketRefused."""
    claims = _claims(token, secret, AUDIENCE)
    ticket = _read(claims)
    if ticket is None or ticket.base != base:
        raise TicketRefused
    return ticket


def _signed(audience: str, secret: str, claims: dict[str, Any]) -> str:
    now = int(time.time())
    usual = {"iss": ISSUER, "aud": audience, "iat": now, "exp": now + LIFETIME_S}
    return jwt.encode(usual | claims, secret, algorithm="HS256")


def _claims(token: object, secret: str, audience: str) -> dict[str, Any]:
    if not isinstance(token, str):
        raise TicketRefused
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            audience=audience,
            issuer=ISSUER,
            leeway=LEEWAY_S,
            options={"require": ["exp", "iat", "aud", "iss"]},
        )
    except (jwt.InvalidTokenError, ValueError) as error:
        raise TicketRefused from error
    return claims


def _read(claims: dict[str, Any]) -> Ticket | None:
    limits = claims.get("limits")
    key, digest = claims.get("adapter_key"), claims.get("adapter_digest")
    names_an_adapter = isinstance(key, str) and isinstance(digest, str)
    if (
        not isinstance(claims.get("organization"), str)
        or not isinstance(claims.get("base"), str)
        or not isinstance(limits, dict)
        or not isinstance(limits.get("max_new_tokens"), int)
        or not (names_an_adapter or (key is None and digest is None))
    ):
        return None
    return Ticket(claims["organization"], claims["base"], limits["max_new_tokens"], key, digest)
