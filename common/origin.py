"""Where the present request came from."""

from __future__ import annotations

import contextvars
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager

UNKNOWN = "unknown"

_address: contextvars.ContextVar[str | None] = contextvars.ContextVar("address", default=None)


@contextmanager
def request_from(address: str) -> Iterator[None]:
    """What is done in this block is done for the host at `address`."""
    known = _known(address)
    token = _address.set("" if known is None else str(known))
    try:
        yield
    finally:
        _address.reset(token)


def address() -> str:
    """The network address that asked; empty where nobody did, as in a command, and where a proxy does not say who."""
    return _address.get() or ""


def network() -> str | None:
    """`network_of` the address that asked; None where nobody did."""
    asked = _address.get()
    return None if asked is None else network_of(asked)


def network_of(address: str) -> str:
    """What is counted as one: an IPv4 address, or the 64 bits of an IPv6 one that a customer gets as a whole.

    All whom a proxy does not name are one, too: nobody gets around a limit by being unknown.
    """
    known = _known(address)
    if isinstance(known, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((known, 64), strict=False))
    return UNKNOWN if known is None else str(known)


def _known(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The one address behind all its spellings; a proxy hands on what it was told."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    return found.ipv4_mapped or ipaddress.IPv6Address(int(found))  # without its zone, which is any text
