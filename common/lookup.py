"""Jobs by what people call them: the id of the API, the one of the database, or the beginning of that."""

from __future__ import annotations

import base64
import string
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar
from uuid import UUID

from django.db import models

from common.errors import Invalid
from common.jobs import Job, job_models
from common.text import one_line

R = TypeVar("R", bound=models.Model)

SHORT = 8
NAMED_AT_MOST = 5


def short(job: Job) -> str:
    return job.pk.hex[:SHORT]


def api_id(row: models.Model) -> str:
    """What the API calls it: base64 of a type's name, a colon, and the key."""
    return base64.b64encode(f"{type(row).__name__}:{row.pk}".encode()).decode()


def find(text: str) -> Job:
    """The one job, of whichever kind, that `text` names. Raises Invalid, which says what to type instead."""
    digits = digits_of(text, {model.__name__ for model in job_models()})
    between = keys_beginning(digits)
    found = [job for model in job_models() for job in model.objects.filter(pk__range=between)[: NAMED_AT_MOST + 1]]
    if not found:
        raise Invalid(f"No job's id begins with {text}: `manage.py jobs --all` lists them.")
    return the_only(found, text, digits, lambda job: job.queue)


def keys_beginning(digits: str) -> tuple[UUID, UUID]:
    """The first key that begins so, and the last."""
    return UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f"))


def the_only(found: Sequence[R], text: str, digits: str, shown: Callable[[R], object] = str) -> R:
    """The one row whose key begins so, of at least one. Raises Invalid where there are several, and says which."""
    if len(found) > 1:
        length = max(SHORT, len(digits) + 2)
        named = ", ".join(f"{row.pk.hex[:length]} ({one_line(str(shown(row)), 100)})" for row in found[:NAMED_AT_MOST])
        more = " and others" if len(found) > NAMED_AT_MOST else ""
        raise Invalid(
            f"{one_line(text, 60)} is the beginning of several ids: {named}{more}. Type more of the one that you mean."
        )
    return found[0]


def digits_of(text: str, kinds: Collection[str]) -> str:
    """The beginning of a key that `text` is, or, of an id of the API of one of these kinds, the key. Raises Invalid."""
    digits = (_of_relay_id(text, kinds) or text).replace("-", "").lower()
    if not digits or len(digits) > 32 or not set(digits) <= set(string.hexdigits):
        raise Invalid(f"{one_line(text, 60)!r} is no id: one begins with hexadecimal digits, as 3f2a91c0 does.")
    return digits


def _of_relay_id(text: str, kinds: Collection[str]) -> str | None:
    try:
        kind, colon, key = base64.b64decode(text, validate=True).decode("ascii").partition(":")
    except ValueError:
        return None
    return key if colon and kind in kinds else None
