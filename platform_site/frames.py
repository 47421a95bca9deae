"""Room for the frames of deep calls. docs/decisions/0021-room-for-frames.md says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SLOTS = (
    32_000  # of eight bytes: what is allocated for them is a power of two, and the half that is left over is the room
)


def with_room(call: Callable[[], T]) -> T:
    """`call()`, on a stack that has room for 250 kB of Python frames in one piece."""
    return call()


with_room.__code__ = with_room.__code__.replace(co_stacksize=SLOTS)
