"""Database work of async code, in a few threads that keep their connections."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import close_old_connections, connection

FRESH_S = 1.0  # a connection that has just answered is not asked first whether it still does: that is a round trip

T = TypeVar("T")
_threads = ThreadPoolExecutor(8, thread_name_prefix="database")
_thread = threading.local()


async def in_thread(function: Callable[[], T], threads: ThreadPoolExecutor = _threads) -> T:
    """Run blocking work off the event loop. Scopes are opened inside `function`: they belong to its thread.

    What must not wait behind everybody else's brings `threads` of its own.
    """

    def call() -> T:
        if connection.errors_occurred or time.monotonic() - getattr(_thread, "answered_at", 0.0) > FRESH_S:
            close_old_connections()
        result = function()
        _thread.answered_at = time.monotonic()
        return result

    return await asyncio.get_running_loop().run_in_executor(threads, call)
