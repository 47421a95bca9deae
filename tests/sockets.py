"""A client of graphql-transport-ws, message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol


@asynccontextmanager
async def socket(url: str, protocol: str = "graphql-transport-ws", **more: Any) -> AsyncIterator[ClientConnection]:
    address = url.replace("http://", "ws://") + "/graphql"
    async with connect(address, subprotocols=[Subprotocol(protocol)], proxy=None, **more) as opened:
        yield opened


async def tell(opened: ClientConnection, **message: Any) -> None:
    await opened.send(json.dumps(message))


async def hear(opened: ClientConnection) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(opened.recv(), 10))


async def greet(opened: ClientConnection, token: str | None) -> None:
    await tell(opened, type="connection_init", payload={"authorization": f"Bearer {token}"} if token else {})
    assert await hear(opened) == {"type": "connection_ack"}


async def code_at_the_end(opened: ClientConnection) -> int:
    async with asyncio.timeout(10):
        with suppress(ConnectionClosed):
            while True:
                await opened.recv()
    assert opened.close_code is not None
    return opened.close_code
