"""One uvicorn process, four ways through it, by need.

websocket at /graphql   Channels: subscriptions
/graphql/stream         Django's ASGI handler: subscriptions as server-sent events
/uploads/               a plain ASGI callable with back-pressure
everything else         Django's WSGI application in a fixed pool of threads, each of which keeps its connection
"""

from __future__ import annotations

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
Receive = Callable[[], Awaitable[Any]]


async def application(scope: dict[str, Any], receive: Receive, send: Callable[[Any], Awaitable[None]]) -> None:
    path = scope.get("path", "")
    if scope["type"] == "websocket":
        if path == "/graphql":
            await socket(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 4404})
    elif scope["type"] == "http":
        if path.startswith("/uploads/"):
            await receive_upload(scope, receive, send)
            return
        try:
            scope, receive = await _with_length(scope, receive)
        except _BodyTooLarge:
            await _refuse_body(send)
            return
        await (django_asgi if path == "/graphql/stream" else threads)(scope, receive, send)


class _BodyTooLarge(Exception):
    pass


async def _with_length(scope: dict[str, Any], receive: Receive) -> tuple[dict[str, Any], Receive]:
    """The request with a length. One that comes in chunks is read first: WSGI knows no body without a length."""
    headers = dict(scope["headers"])
    if int(headers.get(b"content-length", b"0")) > settings.MAX_BODY_BYTES:
        raise _BodyTooLarge
    if b"content-length" in headers or b"transfer-encoding" not in headers:
        return scope, receive
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > settings.MAX_BODY_BYTES:
            raise _BodyTooLarge
    whole = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def replay() -> Any:
        return whole.pop() if whole else await receive()

    length = (b"content-length", str(len(body)).encode())
    return {**scope, "headers": [*scope["headers"], length]}, replay


async def _refuse_body(send: Callable[[Any], Awaitable[None]]) -> None:
    body = b'{"errors":[{"message":"A request takes at most 2 MB; files are sent to an upload ticket\'s url.","extensions":{"code":"BODY_TOO_LARGE"}}]}'
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
