"""Where the present request came from."""

from __future__ import annotations

import contextvars
import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager

_address: contextvars.ContextVar[str] = contextvars.ContextVar("address", default="")


@contextmanager
def request_from(address: str) -> Iterator[None]:
    """What is done in this block is done for the host at `address`."""
    token = _address.set(address if _is_address(address) else "")
    try:
        yield
    finally:
        _address.reset(token)


def _is_address(text: str) -> bool:
    """A proxy hands on what it was told."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def address() -> str:
    """The network address that asked; empty where nobody did, as in a command."""
    return _address.get()
