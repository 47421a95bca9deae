"""The server as an ASGI application.

    POST /generate  {ticket, prompt, max_new_tokens, temperature, top_p, seed, stop} -> server-sent events, each
                    data: {sequence, text, tokens}, the last with "prediction"; a failure after the first: event: error
    POST /score     {ticket, rows: [{prompt, completion | text | messages}], max_tokens} -> {rows, loss, tokens, ..}
    GET  /livez     the process is up
    GET  /readyz    it has generated text, and can now

A refusal is JSON {code, message, field, retry_after_s} with a fitting status, and Retry-After where trying again helps.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from inference.engine.errors import EngineError, invalid
from inference.engine.request import MAX_SCORED_ROWS, Chunk, GenerationRequest, Score, check_row
from inference.engine.scheduler import shutting_down
from inference.server.backend import Backend, ServerConfig
from inference.server.http import (
    Disconnected,
    EventStream,
    Receive,
    Scope,
    Send,
    error_json,
    read_json,
    send_error,
    send_json,
)
from inference.tickets import Ticket, TicketRefused, verify
from training.trainer.quantization import BaseModelError

logger = logging.getLogger(__name__)

ROUTES = {"/livez": "GET", "/readyz": "GET", "/generate": "POST", "/score": "POST"}
Event = TypeVar("Event")


class InferenceApp:
    """The base model is loaded in the background from the start on; `on_failure` is called where that fails."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        secret: str,
        fetch: Callable[[str, str], Path],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.backend = Backend(config, fetch)
        self._secret = secret
        self._base_model = config.engine.base_model
        self._on_failure = on_failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send)
            except EngineError as error:
                await send_error(send, error)
            except Disconnected:
                pass

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        threading.Thread(target=self._load, name="load", daemon=True).start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(self.backend.close)
        await send({"type": "lifespan.shutdown.complete"})

    def _load(self) -> None:
        try:
            self.backend.load()
            logger.info("%s is ready", self._base_model)
        except BaseModelError as error:
            logger.error("%s", error)
            self._on_failure()
        except Exception:
            logger.exception("The base model could not be loaded")
            self._on_failure()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = ROUTES.get(scope["path"])
        if method is None:
            raise EngineError("NOT_FOUND", "There is nothing at this address.")
        if scope["method"] != method:
            raise EngineError("METHOD_NOT_ALLOWED", f"This address takes {method}.")
        if scope["path"] == "/livez":
            await send_json(send, 200, {"status": "up"})
        elif scope["path"] == "/readyz":
            await self._tell_readiness(send)
        else:
            body = await read_json(receive)
            try:
                ticket = verify(body.get("ticket"), self._secret, self._base_model)
            except TicketRefused:
                raise EngineError("TICKET_REFUSED", "This needs a valid ticket.") from None
            answer = self._generate if scope["path"] == "/generate" else self._score
            await answer(ticket, body, receive, send)

    async def _tell_readiness(self, send: Send) -> None:
        ready = self.backend.ready
        status = {"status": "ready" if ready else "not ready", **self.backend.load_figures}
        await send_json(send, 200 if ready else 503, status)

    async def _generate(self, ticket: Ticket, body: Mapping[str, Any], receive: Receive, send: Send) -> None:
        request = GenerationRequest.from_json(body)
        inbox: Inbox[Chunk] = Inbox()
        work = await asyncio.to_thread(self.backend.generate, ticket, request, inbox.put)
        stream = EventStream(send)
        try:
            async with watching(receive, inbox):
                async for chunks in inbox:
                    last = chunks[-1].prediction is not None
                    await stream.write([chunk.to_json() for chunk in chunks], last=last)
                    if last:
                        return
        except EngineError as error:
            if not stream.started:
                raise
            await stream.write([error_json(error)], event="error", last=True)
        except asyncio.CancelledError:  # the grace period of a shutdown is over
            if stream.started:
                await stream.write([error_json(shutting_down())], event="error", last=True)
            raise
        finally:
            self.backend.cancel(work)

    async def _score(self, ticket: Ticket, body: Mapping[str, Any], receive: Receive, send: Send) -> None:
        rows, max_tokens = _scored(body)
        inbox: Inbox[Score] = Inbox()
        work = await asyncio.to_thread(self.backend.score, ticket, rows, max_tokens, inbox.put)
        try:
            async with watching(receive, inbox):
                async for scores in inbox:
                    await send_json(send, 200, scores[-1].to_json())
                    return
        finally:
            self.backend.cancel(work)


class Inbox(Generic[Event]):
    """Events from the model's thread for one request. Iterating gives all that is new, at least one at a time.

    It raises an EngineError among the events when its turn comes, and Disconnected once the client has gone.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | EngineError | Disconnected] = asyncio.Queue()

    def put(self, event: Event | EngineError | Disconnected) -> None:
        """Callable from any thread; never blocks, so a slow reader holds nobody up."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def __aiter__(self) -> AsyncIterator[list[Event]]:
        while True:
            events: list[Event] = []
            event: Event | EngineError | Disconnected = await self._queue.get()
            while True:
                if isinstance(event, EngineError | Disconnected):
                    if events:
                        yield events
                    raise event
                events.append(event)
                if self._queue.empty():
                    break
                event = self._queue.get_nowait()
            yield events


@asynccontextmanager
async def watching(receive: Receive, inbox: Inbox[Any]) -> AsyncIterator[None]:
    """Within this the inbox is told when the client disconnects."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        inbox.put(Disconnected())

    task = asyncio.create_task(wait())
    try:
        yield
    finally:
        task.cancel()


def _scored(body: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    rows, max_tokens = body.get("rows"), body.get("max_tokens", 1024)
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_SCORED_ROWS:
        raise invalid("rows", f"This should be a list of 1 to {MAX_SCORED_ROWS} rows.")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool):
        raise invalid("max_tokens", "This should be a whole number.")
    for index, row in enumerate(rows):
        check_row(f"rows[{index}]", row)
    return rows, max_tokens
