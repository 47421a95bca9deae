"""One uvicorn process, four ways through it, by need.

websocket at /graphql   Channels: subscriptions
/graphql/stream         Django's ASGI handler: subscriptions as server-sent events
/uploads/               a plain ASGI callable with back-pressure
everything else         Django's WSGI application in a fixed pool of threads, each of which keeps its connection
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "platform_site.settings")

from a2wsgi import WSGIMiddleware
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

django_asgi = get_asgi_application()

from datasets.receive import receive_upload  # noqa: E402  (models need the apps, which the line above has loaded)
from platform_site.graphql import GraphQLSocket  # noqa: E402
from platform_site.schema import schema  # noqa: E402

threads = WSGIMiddleware(get_wsgi_application(), workers=settings.WEB_THREADS)
socket = GraphQLSocket.as_asgi(schema=schema)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S = 20.0


async def application(scope: Message, receive: Receive, send: Send) -> None:
    path = scope.get("path", "")
    if scope["type"] == "websocket":
        if path == "/graphql":
            await socket(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 4404})
    elif scope["type"] == "http":
        if path.startswith("/uploads/"):
            await receive_upload(scope, receive, send)
        else:
            await _answer(scope, receive, send, django_asgi if path == "/graphql/stream" else _in_a_thread)


class _Disconnected(Exception):
    pass


class _BodyTooLarge(Exception):
    pass


async def _answer(scope: Message, receive: Receive, send: Send, respond: Callable[..., Awaitable[None]]) -> None:
    """Have a request answered once its body is here: whoever sends one slowly must not hold a thread meanwhile."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            body = await _whole_body(scope, receive)
    except _Disconnected:
        return
    except _BodyTooLarge:
        await _refuse(
            send, 413, "BODY_TOO_LARGE", "A request takes at most 2 MB; files are sent to an upload ticket's url."
        )
        return
    except TimeoutError:
        await _refuse(send, 408, "BODY_TOO_SLOW", f"The request was not complete within {BODY_TIMEOUT_S:.0f} seconds.")
        return
    whole = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    # WSGI knows no body without a length, and one in chunks comes without
    headers = [
        (name, value) for name, value in scope["headers"] if name not in (b"content-length", b"transfer-encoding")
    ]
    await respond({**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}, replay, send)


async def _whole_body(scope: Message, receive: Receive) -> bytes:
    if int(dict(scope["headers"]).get(b"content-length", b"0")) > settings.MAX_BODY_BYTES:
        raise _BodyTooLarge
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Disconnected
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > settings.MAX_BODY_BYTES:
            raise _BodyTooLarge
    return bytes(body)


async def _in_a_thread(scope: Message, receive: Receive, send: Send) -> None:
    """Collect the whole answer, then send it: whoever reads it slowly holds its few megabytes, and no thread."""
    answer: list[Message] = []

    async def collect(message: Message) -> None:
        answer.append(message)

    await threads(scope, receive, collect)
    for message in answer:
        await send(message)


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"errors": [{"message": message, "extensions": {"code": code}}]}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
