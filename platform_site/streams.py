"""Server-sent events that end with the right to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from common.errors import DomainError, NotSignedIn
from common.graphql import as_graphql_error
from common.tenancy import Principal
from platform_site import lapse


async def until_lapsed(principal: Principal, chunks: Any) -> AsyncIterator[str]:
    """The stream, and once its principal's right has ended an UNAUTHENTICATED error and the end."""
    if principal.is_nobody:
        async for chunk in chunks:
            yield chunk
        return
    lapsed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    try:
        connection = lapse.end_when_lapsed(principal, lapsed.set_result)
    except lapse.TooManyConnections as refusal:
        yield _refusal(refusal.message, refusal)
        return
    try:
        async for chunk in _until(lapsed, chunks):
            yield chunk
        if lapsed.done():
            yield _refusal(f"{lapsed.result()}.", NotSignedIn())
    finally:
        lapse.forget(connection)


async def _until(lapsed: asyncio.Future[str], chunks: Any) -> AsyncIterator[str]:
    coming: asyncio.Future[str] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(chunks))
            await asyncio.wait({coming, lapsed}, return_when=asyncio.FIRST_COMPLETED)
            if lapsed.done():
                return
            try:
                yield coming.result()
            except StopAsyncIteration:
                return
    finally:
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.wait({coming})
        await chunks.aclose()


def _refusal(message: str, of: DomainError) -> str:
    error: dict[str, Any] = {"message": message, "extensions": as_graphql_error(of).extensions}
    return (
        f"event: next\r\ndata: {json.dumps({'data': None, 'errors': [error]})}\r\n\r\nevent: complete\r\ndata: \r\n\r\n"
    )
