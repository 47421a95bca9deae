"""What a client is told."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]


@dataclass
class Refusal(Exception):
    """An answer other than success, with what to do about it."""

    status: int
    code: str
    message: str
    headers: Headers = ()


class Disconnected(Exception):
    """The client went away."""


def not_found() -> Refusal:
    return Refusal(404, "NOT_FOUND", "There is no such upload, or its ticket has expired; start another one.")


def wrong_size(announced: int, sent: int) -> Refusal:
    message = f"The ticket is for {announced:,} bytes, and these are {sent:,}; start another upload."
    return Refusal(400, "WRONG_SIZE", message)


async def answer(send: Send, status: int, content: dict[str, Any], headers: Headers = ()) -> None:
    body = json.dumps(content).encode()
    said = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    if status >= 400:
        said.append((b"connection", b"close"))  # the rest of the body is not wanted
    if status == 503:
        said.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": status, "headers": said})
    await send({"type": "http.response.body", "body": body})


async def acknowledge(send: Send, status: int, headers: Headers) -> None:
    """An answer without a body."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": b""})
