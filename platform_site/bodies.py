"""Bodies of requests, read whole before anything is done for them: bounded in size, in time, and all together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.conf import settings

from common.errors import DomainError, Invalid, Unavailable
from platform_site.outage_log import SPARINGLY
from platform_site.room import NoRoom, Room

logger = logging.getLogger(__name__)

BODY_TIMEOUT_S = 20.0
room = Room(shared_bytes=256 << 20, free_bytes=1 << 15)  # for bodies: whose they are is not known before they are here
BUSY = Unavailable("More is being asked than can be answered now; try again in a moment.", code="BUSY", retry_after_s=2)


class Disconnected(Exception):
    """Whoever sent it has gone."""


class NotRead(Exception):
    """A request that goes no further, and whose connection is to be closed: the rest of its body is not wanted."""

    def __init__(self, status: int, error: DomainError) -> None:
        super().__init__(status)
        self.status = status
        self.error = error


async def whole_body(scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]]) -> bytes:
    """Raises Disconnected, and NotRead for one that is too large, too slow, or one too many."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _received(scope, receive)
    except NoRoom:
        logger.warning("As many bodies of requests are on their way as there is room for.", extra=SPARINGLY)
        raise NotRead(503, BUSY) from None
    except TimeoutError:
        message = f"The request was not complete within {BODY_TIMEOUT_S:.0f} seconds."
        raise NotRead(408, Invalid(message, code="BODY_TOO_SLOW")) from None


async def _received(scope: Mapping[str, Any], receive: Callable[[], Awaitable[Any]]) -> bytes:
    if int(dict(scope["headers"]).get(b"content-length", b"0")) > settings.MAX_BODY_BYTES:
        raise _too_large()
    body, more = bytearray(), True
    with room.place() as hold:
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > settings.MAX_BODY_BYTES:
                raise _too_large()
            hold(len(body))
    return bytes(body)


def _too_large() -> NotRead:
    message = "A request takes at most 2 MB; files are sent to an upload ticket's url."
    return NotRead(413, Invalid(message, code="BODY_TOO_LARGE"))
