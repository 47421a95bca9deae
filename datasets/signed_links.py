"""Links to files that need no token: what they show is signed into them, with a salt for each purpose, and they soon expire.

Whoever has such a link may follow it. So a link is made only for somebody who may see what it shows, and does not last.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.core import signing

LIFETIME = timedelta(minutes=10)


def url_of(purpose: str, values: Sequence[str]) -> str:
    """PUBLIC_URL/<purpose>/<token>; `values` can be read by whoever has it, and changed by nobody."""
    return f"{settings.PUBLIC_URL}/{purpose}/{signing.dumps(list(values), salt=_salt(purpose), compress=False)}"


def values_in(purpose: str, token: str, count: int) -> list[str] | None:
    """The values of a link that this installation made for this purpose; None for any other, and once it has expired."""
    try:
        values = signing.loads(token, salt=_salt(purpose), max_age=LIFETIME)
    except (signing.BadSignature, ValueError, TypeError):
        return None
    if not isinstance(values, list) or len(values) != count or not all(isinstance(value, str) for value in values):
        return None
    return values


def _salt(purpose: str) -> str:
    return f"datasets.link.{purpose}"
