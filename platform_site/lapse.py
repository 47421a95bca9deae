"""Live connections end with the right to them: with the token, the session, the account, the key, or a role.

Those of a process are looked at together, in three queries every two seconds, however many they are. While the database is
away nobody can have logged out, and tokens run out all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.utils import timezone

from accounts.standing import still_stand
from common.errors import DomainError
from common.outages import AWAY, told
from common.tenancy import Principal
from common.threads import in_thread
from platform_site.outage_log import SPARINGLY, sparingly_if_away

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
LOOK_WITHIN_S = 5.0
MAX_CONNECTIONS = 200
EXPIRED, ENDED = "The access token has expired", "The right to this has ended"

_threads = ThreadPoolExecutor(1, thread_name_prefix="lapse")  # it must not wait while thousands connect
_connections: set[LiveConnection] = set()
_of_each: Counter[str] = Counter()
_looking: list[asyncio.Task[None]] = []


@dataclass(eq=False)
class LiveConnection:
    """Somebody's socket or stream; `end` is called once, in the event loop, with the reason."""

    principal: Principal
    end: Callable[[str], None]


class TooManyConnections(DomainError):
    code = "TOO_MANY_CONNECTIONS"

    def __init__(self) -> None:
        super().__init__(f"There are {MAX_CONNECTIONS} connections of yours already: one carries many subscriptions.")


def end_when_lapsed(principal: Principal, end: Callable[[str], None]) -> LiveConnection:
    """Look after a connection from now on, until it is forgotten. Raises TooManyConnections."""
    if _of_each[principal.name] >= MAX_CONNECTIONS:
        raise TooManyConnections
    connection = LiveConnection(principal, end)
    _connections.add(connection)
    _of_each[principal.name] += 1
    if not _looking or _looking[0].done():
        _looking[:] = [asyncio.create_task(_keep_looking())]
    return connection


def forget(connection: LiveConnection) -> None:
    if connection in _connections:
        _connections.remove(connection)
        name = connection.principal.name
        _of_each[name] -= 1
        if not _of_each[name]:
            del _of_each[name]


async def _keep_looking() -> None:
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        try:
            await _look()
        except AWAY as error:
            logger.warning("%s", told(error), extra=sparingly_if_away(error))
        except TimeoutError:
            logger.warning("Whose rights have ended was not said within %d s.", LOOK_WITHIN_S, extra=SPARINGLY)
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
    principals = [connection.principal for connection in connections]
    async with asyncio.timeout(LOOK_WITHIN_S):  # tokens go on running out while a database hangs
        stand = await in_thread(lambda: still_stand(principals), _threads)
    for connection, stands in zip(connections, stand, strict=True):
        if not stands:
            _end(connection, ENDED)


def _end(connection: LiveConnection, reason: str) -> None:
    if connection in _connections:
        forget(connection)
        connection.end(reason)
