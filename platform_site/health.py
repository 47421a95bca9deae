"""Whether the web process can serve: asked and answered beside the threads that may be spent."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from django.db import ProgrammingError, connection
from django.db.migrations.loader import MigrationLoader
from redis import RedisError, ResponseError

from common.outages import AWAY, first_line
from common.queues import check
from common.threads import in_thread

TIMEOUT_S = 5.0

_threads = ThreadPoolExecutor(2, thread_name_prefix="health")  # others' may all be waiting for what is away


async def failing() -> dict[str, str]:
    """What keeps the process from serving, by name, each with the reason."""
    reason = await _in_time(_database)
    return {"database": reason} if reason else {}


async def degraded() -> dict[str, str]:
    """What it can serve without, and what that costs: a submitted job is a row, and events are read from the database."""
    reason = await _in_time(_redis)
    return {"redis": f"{reason} Jobs are kept, and wait; live events come half a second later."} if reason else {}


async def _in_time(check: Callable[[], str]) -> str:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await in_thread(check, _threads)
    except TimeoutError:
        return "It does not answer."


def _database() -> str:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT app, name FROM django_migrations")
            missing = _newest_migrations() - set(cursor.fetchall())
    except AWAY:
        return "It cannot be reached."
    except ProgrammingError:  # no such table
        missing = _newest_migrations()
    if missing:
        return f"Migrations are missing, up to {', '.join(sorted(f'{app}.{name}' for app, name in missing))}."
    return ""


@functools.cache
def _newest_migrations() -> frozenset[tuple[str, str]]:
    """Each app's last; reading them takes longer than a request should, so once."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())


def _redis() -> str:
    try:
        check()
    except ResponseError as error:
        return f"It refuses writes ({first_line(error)})."
    except RedisError:
        return "It cannot be reached."
    return ""
