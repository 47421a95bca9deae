"""The server as an ASGI application.

    POST /generate  {ticket, prompt | messages, max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed, stop,
                    logprobs, wait_s} -> server-sent events, each data: {sequence, text, tokens}, where asked with "logprobs",
                    the last with "prediction"; a failure after the first: event: error
    POST /score     {ticket, rows: [{prompt, completion | text | messages}], max_tokens, wait_s} -> {rows, loss, tokens, ..}
    POST /status    {ticket} -> what it holds and does
    GET  /livez     the process is up
    GET  /readyz    it can generate now: the model's thread has just done something, or does when it is asked

Who asks waits for a place at the model and room for its tokens, for `wait_s` seconds or the server's patience, in the
line of the ticket's organization. A refusal is JSON {code, message, field, retry_after_s} with a fitting status, and
Retry-After where trying again helps.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from inference.engine.adapters import AdapterRef
from inference.engine.errors import EngineError, invalid
from inference.engine.request import MAX_SCORED_ROWS, Chunk, GenerationRequest, Score, check_row
from inference.engine.scheduler import Work, shutting_down
from inference.server.admission import Admission, Turn, waited_too_long
from inference.server.backend import Backend, Found, ServerConfig, adapter_of
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
from inference.server.inbox import Inbox, is_last, listening
from inference.server.pulse import Pulse
from inference.server.status import Tally, status
from inference.tickets import MAX_WAIT_S, Ticket, TicketRefused, verify, verify_status
from training.trainer.quantization import BaseModelError

logger = logging.getLogger(__name__)

ROUTES = {"/livez": "GET", "/readyz": "GET", "/generate": "POST", "/score": "POST", "/status": "POST"}
FETCHING_THREADS = 16
LOOK_EVERY_S = 1.0
STUCK_S = 300.0
"""One step takes less on any machine; the thread of a model that is at work, and still for so long, does not come back."""


class InferenceApp:
    """The base model is loaded in the background from the start on.

    `on_failure` is called where that fails, and where the model's thread has died or hangs: the process is of no use then.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        secret: str,
        fetch: Callable[[str, str], Path],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self.backend = Backend(config, fetch)
        self.admission = Admission(
            places=config.active_limit, waiting=config.queue_limit, room=lambda: self.backend.room_tokens
        )
        self.tally = Tally()
        self._pulse = Pulse(self._ask_for_a_token, lambda: self.backend.stepped_at)
        self._patience_s = config.patience_s
        self._secret = secret
        self._base_model = config.engine.base_model
        self._on_failure = on_failure
        self._threads = ThreadPoolExecutor(FETCHING_THREADS, thread_name_prefix="fetch")
        self._fetching: dict[AdapterRef, asyncio.Future[Found]] = {}

    @property
    def load_figures(self) -> dict[str, int]:
        return {"active": self.admission.at_work, "queued": self.admission.waiting}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            try:
                await self._answer(scope, receive, send)
            except EngineError as error:
                self.tally.ended[error.code] += 1
                await send_error(send, error)
            except Disconnected:
                pass

    async def drain(self, limit_s: float) -> None:
        """Refuse what waits and what comes, SHUTTING_DOWN, and return when all that is at work has ended, or after `limit_s`."""
        self.admission.close(shutting_down)
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self.admission.idle()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        threading.Thread(target=self._load, name="load", daemon=True).start()
        watch = asyncio.create_task(self._watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        watch.cancel()
        await asyncio.to_thread(self.backend.close)
        self._threads.shutdown(wait=False, cancel_futures=True)
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

    async def _watch(self) -> None:
        """A process whose model will never answer again ends, and whoever started it starts another one."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self.backend.is_broken:
                why = "has died"
            elif self.admission.at_work and self._pulse.owing_s > STUCK_S:
                why = f"has done nothing for {STUCK_S:.0f} s at its work"
            else:
                if self.admission.at_work and self._pulse.owing_s > STUCK_S / 2:
                    self._pulse.ask()
                continue
            logger.critical("The model's thread %s: the process ends", why)
            self._on_failure()
            return

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
        elif scope["path"] == "/status":
            body = await read_json(receive)
            with _believing():
                verify_status(body.get("ticket"), self._secret)
            await send_json(send, 200, status(self.backend, self.admission, self.tally))
        else:
            body = await read_json(receive)
            with _believing():
                ticket = verify(body.get("ticket"), self._secret, self._base_model)
            answer = self._generate if scope["path"] == "/generate" else self._score
            await answer(ticket, body, receive, send)

    async def _tell_readiness(self, send: Send) -> None:
        reason = await self._unready()
        if reason:
            await send_json(send, 503, {"status": "not ready", "reason": reason, **self.load_figures})
        else:
            await send_json(send, 200, {"status": "ready", **self.load_figures})

    async def _unready(self) -> str:
        """Why nothing can be generated now; empty where it can."""
        if self.admission.is_closed:
            return "It is stopping."
        if not self.backend.ready:
            return "The model's thread has died." if self.backend.is_broken else "The base model is being loaded."
        if not await self._pulse.is_felt():
            return f"The model has done nothing for {self._pulse.silent_s:.0f} seconds."
        return ""

    def _ask_for_a_token(self) -> None:
        try:
            self.backend.probe(Inbox[Chunk](lambda event: self._pulse.answered()).put)
        except EngineError as error:
            logger.warning("The model takes nothing: %s", error.message)
            self._pulse.refused()

    async def _generate(self, ticket: Ticket, body: Mapping[str, Any], receive: Receive, send: Send) -> None:
        request, wait_s = GenerationRequest.from_json(body), self._wait_s(body)
        self.backend.check(ticket, request.max_new_tokens)
        tokens = await asyncio.to_thread(self.backend.measure, request)
        stream = EventStream(send)
        try:
            begin = partial(self.backend.generate, ticket, request)
            async with self._at_work(ticket, wait_s, tokens, begin, receive) as inbox:
                async for chunks in inbox:
                    last = chunks[-1].prediction is not None
                    await stream.write([chunk.to_json() for chunk in chunks], last=last)
                    if last:
                        return
        except EngineError as error:
            if not stream.started:
                raise
            self.tally.ended[error.code] += 1
            await stream.write([error_json(error)], event="error", last=True)
        except asyncio.CancelledError:  # the grace period of a shutdown is over
            if stream.started:
                await stream.write([error_json(shutting_down())], event="error", last=True)
            else:
                await send_error(send, shutting_down())
            raise

    async def _score(self, ticket: Ticket, body: Mapping[str, Any], receive: Receive, send: Send) -> None:
        (rows, max_tokens), wait_s = _scored(body), self._wait_s(body)
        self.backend.check(ticket, 0)
        begin = partial(self.backend.score, ticket, rows, max_tokens)
        async with self._at_work(ticket, wait_s, 0, begin, receive) as inbox:  # what is scored leaves nothing behind
            async for scores in inbox:
                answer: Score = scores[-1]
                self.tally.ended["SCORED"] += 1
                await send_json(send, 200, answer.to_json())
                return

    @asynccontextmanager
    async def _at_work(
        self,
        ticket: Ticket,
        wait_s: float,
        tokens: int,
        begin: Callable[[Callable[[Any], None]], Work],
        receive: Receive,
    ) -> AsyncIterator[Inbox[Any]]:
        """What the model says to the request that `begin` hands to it, once there is a place, and room for its tokens.

        The place is free again when the model has done with it, and not when the client has read all; whoever leaves
        this early has it end before the next step. Raises EngineError and Disconnected.
        """
        turn: Turn | None = None

        def heard(event: object) -> None:
            self._pulse.heard()
            if is_last(event) and turn is not None:
                self.tally.heard_last(event)
                turn.end()

        inbox: Inbox[Any] = Inbox(heard)
        deadline = asyncio.get_running_loop().time() + wait_s
        async with listening(receive, inbox) as gone:
            await self._have_adapter(ticket, deadline)
            turn = await self.admission.take(ticket.organization, deadline, gone, tokens)
            self._pulse.owe()
            try:
                work = await asyncio.to_thread(begin, inbox.put)
            except BaseException:
                turn.end()
                raise
            try:
                yield inbox
            finally:
                self.backend.cancel(work)

    async def _have_adapter(self, ticket: Ticket, deadline: float) -> None:
        """Have the adapter in memory before its turn comes: whoever waits for storage holds no place.

        However many ask for it, one thread fetches it.
        """
        ref = adapter_of(ticket)
        if ref is None:
            return
        fetching = self._fetching.get(ref)
        if fetching is None:
            loop = asyncio.get_running_loop()
            fetching = self._fetching[ref] = loop.run_in_executor(self._threads, self.backend.fetch, ref)
            fetching.add_done_callback(partial(self._fetched, ref))
        try:
            async with asyncio.timeout_at(deadline):
                self.tally.found[await asyncio.shield(fetching)] += 1
        except TimeoutError:
            raise waited_too_long() from None

    def _fetched(self, ref: AdapterRef, fetching: asyncio.Future[Found]) -> None:
        del self._fetching[ref]
        if not fetching.cancelled():
            fetching.exception()  # whoever waits for it hears of it; if nobody does, nobody has to

    def _wait_s(self, body: Mapping[str, Any]) -> float:
        wait_s = body.get("wait_s")
        if wait_s is None:
            return self._patience_s
        if isinstance(wait_s, bool) or not isinstance(wait_s, int | float) or not 0 < wait_s <= MAX_WAIT_S:
            raise invalid("wait_s", f"This should be a number of seconds, above 0 and up to {MAX_WAIT_S}.")
        return float(wait_s)


@contextmanager
def _believing() -> Iterator[None]:
    """Within this a ticket that is refused is a refusal of the request."""
    try:
        yield
    except TicketRefused:
        raise EngineError("TICKET_REFUSED", "This needs a valid ticket.") from None


def _scored(body: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], int]:
    rows, max_tokens = body.get("rows"), body.get("max_tokens", 1024)
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_SCORED_ROWS:
        raise invalid("rows", f"This should be a list of 1 to {MAX_SCORED_ROWS} rows.")
    if not isinstance(max_tokens, int) or isinstance(max_tokens, bool):
        raise invalid("max_tokens", "This should be a whole number.")
    for index, row in enumerate(rows):
        check_row(f"rows[{index}]", row)
    return rows, max_tokens
