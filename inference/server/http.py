"""The little of HTTP that the server needs: a JSON body with a limit, JSON answers, and server-sent events."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from inference.engine.errors import EngineError, invalid

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 1_000_000

STATUS = {
    "INVALID": 400,
    "PROMPT_TOO_LONG": 400,
    "CHAT_TEMPLATE": 400,
    "ADAPTER_INVALID": 400,
    "ADAPTER_BASE_MISMATCH": 400,
    "ADAPTER_DIGEST_MISMATCH": 400,
    "TICKET_REFUSED": 401,
    "ADAPTER_NOT_FOUND": 404,
    "NOT_FOUND": 404,
    "METHOD_NOT_ALLOWED": 405,
    "BODY_TOO_LARGE": 413,
    "ADAPTER_UNAVAILABLE": 503,
    "QUEUE_FULL": 503,
    "SHUTTING_DOWN": 503,
    "STARTING": 503,
    "WAITED_TOO_LONG": 503,
}


class Disconnected(Exception):
    """The client went away."""


async def read_json(receive: Receive) -> dict[str, Any]:
    """Read a body that is a JSON object. Raises EngineError BODY_TOO_LARGE and INVALID, and Disconnected."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise EngineError("BODY_TOO_LARGE", f"The body is over {MAX_BODY_BYTES} bytes.")
        if not message.get("more_body"):
            break
    try:
        value = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise invalid("body", "The body should be JSON.") from None
    if not isinstance(value, dict):
        raise invalid("body", "The body should be a JSON object.")
    return value


async def send_json(send: Send, status: int, value: dict[str, Any], retry_after_s: int | None = None) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % retry_after_s))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: EngineError) -> None:
    await send_json(send, STATUS.get(error.code, 500), error_json(error), error.retry_after_s)


def error_json(error: EngineError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "field": error.field,
        "retry_after_s": error.retry_after_s,
    }


class EventStream:
    """An answer of server-sent events; nothing is sent before the first one."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def write(self, values: list[dict[str, Any]], *, event: str | None = None, last: bool = False) -> None:
        if not self.started:
            self.started = True
            headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        name = f"event: {event}\n" if event else ""
        body = "".join(f"{name}data: {json.dumps(value)}\n\n" for value in values).encode()
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})
