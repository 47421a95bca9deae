"""Jobs by what people call them: the id of the API, the one of the database, or the beginning of that."""

from __future__ import annotations

import base64
import string
from collections.abc import Collection
from uuid import UUID

from django.db import models

from common.errors import Invalid
from common.jobs import Job, job_models
from common.text import one_line

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
    low, high = (UUID(digits.ljust(32, filler)) for filler in "0f")
    found = [job for model in job_models() for job in model.objects.filter(pk__range=(low, high))[: NAMED_AT_MOST + 1]]
    if not found:
        raise Invalid(f"No job's id begins with {text}: `manage.py jobs --all` lists them.")
    if len(found) > 1:
        named = ", ".join(f"{job.pk.hex[: max(SHORT, len(digits) + 2)]} ({job.queue})" for job in found[:NAMED_AT_MOST])
        more = " and others" if len(found) > NAMED_AT_MOST else ""
        raise Invalid(f"{text} is the beginning of several ids: {named}{more}. Type more of the one that you mean.")
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
