"""Who asks, as much as can be told before a thread has looked into it: with the same credentials it is the same people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.origin import network_of

Asker = tuple[bytes, str]
"""Credentials; where there are none, the network that the request came from."""


def asker_of(scope: Mapping[str, Any]) -> Asker:
    """Of an HTTP request. Whoever spells a token in another way, or asks from elsewhere with it, is no other one."""
    authorization = dict(scope["headers"]).get(b"authorization", b"")
    if authorization:
        return " ".join(credentials_in(authorization.decode("latin-1"))).encode("latin-1"), ""
    client = scope.get("client")
    return b"", network_of(client[0] if client else "")


def credentials_in(authorization: str) -> tuple[str, str]:
    """(kind in small letters, token) of an Authorization header."""
    kind, _, token = authorization.partition(" ")
    return kind.lower(), token.strip()
