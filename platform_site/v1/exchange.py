"""One request at /v1 and its answer: whole, or in pieces; each has an id, by which operators find it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

from platform_site.answers import Answer, as_json
from platform_site.askers import asker_of

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

EVENTS = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store"))
DONE = b"data: [DONE]\n\n"


def new_id() -> str:
    return f"req_{uuid4().hex}"


def identified(answer: Answer, request_id: str) -> Answer:
    return replace(answer, headers=[*answer.headers, (b"x-request-id", request_id.encode())])


class Exchange:
    """`headers` are added to its answer, whatever that turns out to be."""

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.id = new_id()
        self.headers: dict[str, str] = {}
        self.has_begun = False
        """Whether its status is sent; from then on a refusal is an event."""
        self._send = send

    @property
    def asker(self) -> tuple[bytes, str]:
        return asker_of(self.scope)

    @property
    def authorization(self) -> str:
        given: bytes = dict(self.scope["headers"]).get(b"authorization", b"")
        return given.decode("latin-1")

    @property
    def address(self) -> str:
        client = self.scope.get("client")
        return client[0] if client else ""

    async def answer(self, status: int, content: Mapping[str, Any], *more: tuple[bytes, bytes]) -> Answer:
        """Send all of it; it is returned without its id, which is this request's alone."""
        answer = as_json(status, dict(content), *encoded(self.headers), *more)
        await self.repeat(answer)
        return answer

    async def refuse(self, status: int, content: Mapping[str, Any], *more: tuple[bytes, bytes]) -> Answer:
        """`answer`; where a stream has begun the refusal is its last piece."""
        if not self.has_begun:
            return await self.answer(status, content, *more)
        await self.tell(content)
        await self.end()
        return as_json(status, dict(content))

    async def repeat(self, answer: Answer) -> None:
        """Send what was answered before."""
        self.has_begun = True
        headers = identified(answer, self.id).headers
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def tell(self, *events: Mapping[str, Any]) -> None:
        """Send pieces of a stream. Nothing is sent before the first ones."""
        if not events:
            return
        if not self.has_begun:
            self.has_begun = True
            headers = [*EVENTS, *encoded(self.headers), (b"x-request-id", self.id.encode())]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": body})

    async def gone(self) -> None:
        """Return once whoever asked has gone; to be asked when the body is here."""
        while (await self.receive())["type"] != "http.disconnect":
            pass


def encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
