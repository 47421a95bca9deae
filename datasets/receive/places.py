"""How many are received at a time, by one web process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from datasets.receive.answers import Refusal

MAX_AT_ONCE = 64  # each with its buffer; one that comes after waits at its client
MAX_OF_ONE_ORGANIZATION = 16  # of these: slow ones must not keep everybody else away

_at_once = 0
_of_each: Counter[UUID] = Counter()


@contextmanager
def a_place() -> Iterator[None]:
    global _at_once
    _at_once += 1
    try:
        if _at_once > MAX_AT_ONCE:
            message = "As many files as can be received at a time are being sent; try again in a moment."
            raise Refusal(503, "BUSY", message)
        yield
    finally:
        _at_once -= 1


@contextmanager
def a_place_of(organization_id: UUID) -> Iterator[None]:
    if _of_each[organization_id] >= MAX_OF_ONE_ORGANIZATION:
        raise Refusal(
            503,
            "BUSY",
            f"Your organization is sending {MAX_OF_ONE_ORGANIZATION} files, the most at a time; try again in a moment.",
        )
    _of_each[organization_id] += 1
    try:
        yield
    finally:
        _of_each[organization_id] -= 1
        if not _of_each[organization_id]:
            del _of_each[organization_id]
