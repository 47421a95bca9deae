"""Room for what is on its way from people of whom nothing is known yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class NoRoom(Exception):
    """As much as may be held is held: whoever wants more has to come again."""


class Room:
    """Each may hold `free_bytes`, and all together `shared_bytes` more: those who need little do not depend on the others."""

    def __init__(self, shared_bytes: int, free_bytes: int) -> None:
        self.left_bytes = shared_bytes
        self._free_bytes = free_bytes

    @contextmanager
    def place(self) -> Iterator[Callable[[int], None]]:
        """A function that says how much is held by now, until the block ends. It raises NoRoom."""
        shared_bytes = 0

        def hold(size_bytes: int) -> None:
            nonlocal shared_bytes
            more_bytes = max(0, size_bytes - self._free_bytes) - shared_bytes
            if more_bytes > self.left_bytes:
                raise NoRoom
            self.left_bytes -= more_bytes
            shared_bytes += more_bytes

        try:
            yield hold
        finally:
            self.left_bytes += shared_bytes
