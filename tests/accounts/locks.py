"""Two who want the same row at once, one of whom is made to wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from django.db import connection

T = TypeVar("T")
PATIENCE_S = 10


@contextmanager
def in_another_thread() -> Iterator[Callable[[Callable[[], T]], Future[T]]]:
    """Begins an action on a connection of its own, and returns once it waits for a lock that this thread holds."""

    def begin(action: Callable[[], T]) -> Future[T]:
        def act() -> T:
            try:
                return action()
            finally:
                connection.close()

        begun = other.submit(act)
        deadline = time.monotonic() + PATIENCE_S
        while not _somebody_waits():
            assert not begun.done(), begun.result()
            assert time.monotonic() < deadline, "nothing waits"
            time.sleep(0.01)
        return begun

    with ThreadPoolExecutor(1) as other:
        yield begin


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_stat_clear_snapshot()"
        )  # in a transaction, who connects after the first look is not seen
        cursor.execute(
            """SELECT EXISTS (
                 SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                 WHERE NOT granted AND datname = current_database()
               )"""
        )
        return bool(cursor.fetchone()[0])
