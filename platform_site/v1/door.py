"""Where requests at /v1 come in: paced, counted, and answered as those at /graphql are, in another shape.

No request holds a web thread: people and models are looked up in the few threads that streams use, and an answer under way waits
for the inference server in the event loop, streamed or not, until it is here, or whoever asked has gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

from django.conf import settings

from common.errors import Invalid, NotSignedIn, Unavailable
from common.tenancy import Principal
from common.threads import in_thread
from platform_site import lapse
from platform_site.answers import Answer, as_json
from platform_site.askers import Asker
from platform_site.bodies import Disconnected, NotRead, whole_body
from platform_site.graphql import TurnedAway, admit
from platform_site.limits.excess import TOO_MANY_REQUESTS, charged, paces, wait_for_room
from platform_site.limits.pacing import TooFast
from platform_site.limits.refusals import Refusals
from platform_site.limits.requests import headers as rate_headers
from platform_site.v1 import parameters, wire
from platform_site.v1.errors import NoAddress, NoMethod, TooManyAtOnce, worded
from platform_site.v1.exchange import DONE, Exchange, Message, Receive, Send, encoded, identified, new_id
from platform_site.v1.generation import Permitted, generated, permitted
from platform_site.v1.listing import model_of, models_of

DIGEST = "x-adapter-digest"
"""Of the adapter that an answer is of; an answer of the base model has no such header."""
MODELS = "/v1/models"
GENERATING: dict[str, tuple[Callable[[bytes], parameters.Asked], wire.Form]] = {
    "/v1/completions": (parameters.completions, wire.Completion()),
    "/v1/chat/completions": (parameters.chat, wire.Chat()),
}
CLOSE = (b"connection", b"close")

_refusals = Refusals()  # of the rate, in this shape


def refusal_of(asker: Asker) -> Answer | None:
    """What they are told at once, if it can be known that there is no room for another request of theirs."""
    request_id = new_id()
    known = _refusals.of(asker)
    if known is None and (found := paces.look(asker)):
        known = _too_fast(asker, found, request_id)
    return known and identified(known, request_id)


async def answer_v1(scope: Message, receive: Receive, send: Send) -> None:
    exchange = Exchange(scope, receive, send)
    try:
        await _answer(exchange)
    except Disconnected:
        pass
    except NotRead as refusal:
        await _refuse(exchange, refusal.error, refusal.status, CLOSE)
    except TurnedAway as away:
        exchange.headers |= away.headers
        answer = await _refuse(exchange, away.error, away.status)
        if away.status == TOO_MANY_REQUESTS:
            _refusals.remember(exchange.asker, answer)
    except Exception as error:
        await _refuse(exchange, error)


async def _answer(exchange: Exchange) -> None:
    path, method = exchange.scope["path"], exchange.scope["method"]
    is_model = path == MODELS or path.startswith(f"{MODELS}/")
    if not is_model and path not in GENERATING:
        raise NoAddress(f"There is nothing at this address: {MODELS}, {', '.join(GENERATING)} are.")
    if method != (allowed := "GET" if is_model else "POST"):
        raise NoMethod(allowed)
    if known := _refusals.of(exchange.asker):
        await exchange.repeat(known)
        return
    if too_fast := await wait_for_room(exchange.asker):
        await exchange.repeat(_too_fast(exchange.asker, too_fast, exchange.id))
        return
    body = await whole_body(exchange.scope, exchange.receive)
    principal = await _admitted(exchange)
    if path == MODELS:
        await exchange.answer(200, await in_thread(partial(models_of, principal)))
    elif is_model:
        await exchange.answer(200, await in_thread(partial(model_of, principal, path.removeprefix(f"{MODELS}/"))))
    else:
        await _generate(exchange, principal, body)


async def _admitted(exchange: Exchange) -> Principal:
    """Who asks; how they stand with their requests is told with whatever they are answered. Raises TurnedAway, and NotSignedIn."""
    principal, standing = await in_thread(partial(admit, exchange.authorization, exchange.address))
    if standing is not None:
        exchange.headers |= rate_headers(standing)
        paces.learn(exchange.asker, standing.rate.count)
    if principal.is_nobody:
        raise NotSignedIn
    return principal


async def _generate(exchange: Exchange, principal: Principal, body: bytes) -> None:
    read, form = GENERATING[exchange.scope["path"]]
    with _looked_after(principal) as lapsed:
        asked = await in_thread(partial(read, body))
        try:
            found = await in_thread(partial(permitted, principal, asked))
            answer = _stream if asked.stream else _whole
            answering = wire.Wire(form, asked.model, found.digest, asked.include_usage)
            await _while_wanted(exchange, lapsed, answer(exchange, found, answering))
        except Invalid as refusal:
            raise Invalid(
                refusal.message, code=refusal.code, field=asked.names.get(refusal.field or "", refusal.field)
            ) from None


async def _whole(exchange: Exchange, found: Permitted, answering: wire.Wire) -> None:
    predictions: dict[int, wire.Prediction] = {}
    try:
        async with asyncio.timeout(settings.INFERENCE_TIMEOUT_S), aclosing(generated(found)) as heard:
            async for number, chunk in heard:
                if "prediction" in chunk:
                    predictions[number] = chunk["prediction"]
    except TimeoutError:
        message = "The inference server took too long; ask for fewer tokens, or use a stream."
        raise Unavailable(message, code="INFERENCE_TIMEOUT") from None
    exchange.headers |= _digest(found)
    await exchange.answer(200, answering.whole([predictions[number] for number in sorted(predictions)]))


async def _stream(exchange: Exchange, found: Permitted, answering: wire.Wire) -> None:
    predictions: list[wire.Prediction] = []
    async with aclosing(generated(found)) as heard:
        async for number, chunk in heard:
            if "prediction" in chunk:
                predictions.append(chunk["prediction"])
            exchange.headers |= _digest(found)
            await exchange.tell(*answering.pieces(number, chunk))
    await exchange.tell(*answering.end(predictions))
    await exchange.end(DONE)


def _digest(found: Permitted) -> dict[str, str]:
    return {} if found.digest is None else {DIGEST: found.digest}


def _too_fast(asker: Asker, found: TooFast, request_id: str) -> Answer:
    error, headers = charged(asker, found)
    refusal = worded(error, request_id, TOO_MANY_REQUESTS)
    return as_json(refusal.status, refusal.content, *encoded({**refusal.headers, **headers}))


@contextmanager
def _looked_after(principal: Principal) -> Iterator[asyncio.Future[str]]:
    """A future that is done once their right to an answer has ended, with the reason. Raises TooManyAtOnce."""
    lapsed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    try:
        connection = lapse.end_when_lapsed(principal, lapsed.set_result)
    except lapse.TooManyConnections:
        raise TooManyAtOnce from None
    try:
        yield lapsed
    finally:
        lapse.forget(connection)


async def _while_wanted(exchange: Exchange, lapsed: asyncio.Future[str], work: Coroutine[Any, Any, None]) -> None:
    """Do the work, unless whoever asked goes, or their right to it ends. Raises Disconnected, and NotSignedIn."""
    working, gone = asyncio.create_task(work), asyncio.create_task(exchange.gone())
    try:
        whichever: set[asyncio.Future[Any]] = {working, gone, lapsed}
        await asyncio.wait(whichever, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        elif gone.done():
            raise Disconnected
        else:
            raise NotSignedIn
    finally:
        gone.cancel()
        working.cancel()
        await asyncio.wait({working})  # it gives back its place, and settles


async def _refuse(
    exchange: Exchange, error: Exception, status: int | None = None, *headers: tuple[bytes, bytes]
) -> Answer:
    refusal = worded(error, exchange.id, status)
    exchange.headers = {**refusal.headers, **exchange.headers}
    return await exchange.refuse(refusal.status, refusal.content, *headers)
