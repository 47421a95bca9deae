"""Database work of async code, in a few threads that keep their connections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import close_old_connections

T = TypeVar("T")
_threads = ThreadPoolExecutor(8, thread_name_prefix="database")


async def in_thread(function: Callable[[], T]) -> T:
    """Run blocking work off the event loop. Scopes are opened inside `function`: they belong to its thread."""

    def call() -> T:
        close_old_connections()
        return function()

    return await asyncio.get_running_loop().run_in_executor(_threads, call)
