"""Live connections end with the right to them: with the token, the session, the account, the key, or a role.

Those of a process are looked at together, in three queries every two seconds, however many they are. While the database is
away nobody can have logged out, and tokens run out all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.utils import timezone

from accounts.standing import still_stand
from common.outages import AWAY, told
from common.tenancy import Principal
from common.threads import in_thread
from platform_site.outage_log import sparingly_if_away

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
EXPIRED, ENDED = "The access token has expired", "The right to this has ended"

_threads = ThreadPoolExecutor(1, thread_name_prefix="lapse")  # it must not wait while thousands connect
_connections: set[LiveConnection] = set()
_looking: list[asyncio.Task[None]] = []


@dataclass(eq=False)
class LiveConnection:
    """Somebody's socket or stream; `end` is called once, in the event loop, with the reason."""

    principal: Principal
    end: Callable[[str], None]


def end_when_lapsed(principal: Principal, end: Callable[[str], None]) -> LiveConnection:
    """Look after a connection from now on, until it is forgotten."""
    connection = LiveConnection(principal, end)
    _connections.add(connection)
    if not _looking or _looking[0].done():
        _looking[:] = [asyncio.create_task(_keep_looking())]
    return connection


def forget(connection: LiveConnection) -> None:
    _connections.discard(connection)


async def _keep_looking() -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await _look()
        except AWAY as error:
            logger.warning("%s", told(error), extra=sparingly_if_away(error))
        except Exception:  # the next look may succeed
            logger.exception("Could not look whose rights have ended.")


async def _look() -> None:
    now = timezone.now()
    for connection in list(_connections):
        expires_at = connection.principal.expires_at
        if expires_at is not None and expires_at <= now:
            _end(connection, EXPIRED)
    connections = list(_connections)
    if not connections:
        return
    stand = await in_thread(lambda: still_stand([connection.principal for connection in connections]), _threads)
    for connection, stands in zip(connections, stand, strict=True):
        if not stands:
            _end(connection, ENDED)


def _end(connection: LiveConnection, reason: str) -> None:
    if connection in _connections:
        forget(connection)
        connection.end(reason)
