"""How many downloads are sent at a time, by one web process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from datasets.receive.answers import Refusal

MAX_AT_ONCE = 32  # each with a row group in memory
MAX_OF_ONE_ORGANIZATION = 8  # of these: slow readers must not keep everybody else away

_of_each: Counter[UUID] = Counter()


@contextmanager
def a_place_of(organization_id: UUID) -> Iterator[None]:
    """Raises Refusal where there is none."""
    if _of_each.total() >= MAX_AT_ONCE:
        raise _busy(f"{MAX_AT_ONCE} files are being sent, the most at a time; try again in a moment.")
    if _of_each[organization_id] >= MAX_OF_ONE_ORGANIZATION:
        raise _busy(f"Your organization is fetching {MAX_OF_ONE_ORGANIZATION} files, the most at a time; wait for one.")
    _of_each[organization_id] += 1
    try:
        yield
    finally:
        _of_each[organization_id] -= 1
        if not _of_each[organization_id]:
            del _of_each[organization_id]


def _busy(message: str) -> Refusal:
    return Refusal(503, "BUSY", message)
