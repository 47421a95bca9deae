"""A web process: four ways through it, by need.

websocket at /graphql   Channels: subscriptions
/graphql/stream         Django's ASGI handler: subscriptions as server-sent events
/uploads/, /downloads/, /files/    plain ASGI callables with back-pressure
/v1/                    what clients of OpenAI's API expect, a plain ASGI callable: an answer under way holds no thread
everything else         Django's WSGI application in a fixed pool of threads; 503 where they are spent

/livez and /readyz are answered here, because they have to be answered above all when the threads are spent.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "platform_site.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

django_asgi = get_asgi_application()

from common.errors import DomainError, Unavailable  # noqa: E402  (what has models needs the apps, which the line above has loaded)
from datasets.download import send_download  # noqa: E402
from datasets.links import send_file  # noqa: E402
from datasets.receive import receive_upload  # noqa: E402
from platform_site import health  # noqa: E402
from platform_site.answers import Answer, as_json, refusal  # noqa: E402
from platform_site.askers import asker_of  # noqa: E402
from platform_site.bodies import BUSY, Disconnected, NotRead, whole_body  # noqa: E402
from platform_site.browsers import for_browsers  # noqa: E402
from platform_site.limits.excess import TOO_MANY_REQUESTS, hold_back, paces, refusals  # noqa: E402
from platform_site.outage_log import SPARINGLY  # noqa: E402
from platform_site.schema import schema  # noqa: E402
from platform_site.sockets import GraphQLSocket  # noqa: E402
from platform_site.turns import Spent  # noqa: E402
from platform_site.v1.door import answer_v1  # noqa: E402
from platform_site.web_threads import WebThreads  # noqa: E402

logger = logging.getLogger(__name__)

threads = WebThreads(get_wsgi_application(), settings.WEB_THREADS)
socket = GraphQLSocket.as_asgi(schema=schema)

# Sockets live long, and by default each thousand more would have all that there is looked through, half a second at a time.
gc.collect()
gc.freeze()  # what is loaded stays
gc.set_threshold(10_000, 10, 10)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

CLOSE = (b"connection", b"close")  # the rest of the body is not wanted


async def route(scope: Message, receive: Receive, send: Send) -> None:
    path = scope.get("path", "")
    if scope["type"] == "websocket":
        if path == "/graphql":
            await socket(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 4404})
    elif scope["type"] == "http":
        if path == "/livez":
            await _say(send, 200, {"status": "ok"})
        elif path == "/readyz":
            await _say_whether_ready(send)
        elif path.startswith("/uploads/"):
            await receive_upload(scope, receive, send)
        elif path.startswith("/files/"):
            await send_file(scope, receive, send)
        elif path.startswith("/downloads/"):
            await send_download(scope, receive, send)
        elif path.startswith("/v1/"):
            await answer_v1(scope, receive, send)
        else:
            await _answer(scope, receive, send, _by_asgi if path == "/graphql/stream" else _in_a_thread)


application = for_browsers(route)


async def _answer(scope: Message, receive: Receive, send: Send, respond: Callable[..., Awaitable[None]]) -> None:
    """Have a request answered once its body is here: whoever sends one slowly must not hold a thread meanwhile."""
    asker, refused = asker_of(scope), None
    try:
        if _is_call(scope):
            refused = await hold_back(asker)  # before there is a whole body to hold
        body = await whole_body(scope, receive)
    except Disconnected:
        return
    except NotRead as refusal:
        again = [_retry_after(refusal.error)] if isinstance(refusal.error, Unavailable) else []
        await _refuse(send, refusal.status, refusal.error, *again, CLOSE)
        return
    if _is_call(scope) and (refused := refusals.of(asker) or refused):
        await _send(send, refused)
        return
    # WSGI knows no body without a length, and one in chunks comes without
    headers = [
        (name, value) for name, value in scope["headers"] if name not in (b"content-length", b"transfer-encoding")
    ]
    scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
    await respond(scope, body, receive, send)


async def _by_asgi(scope: Message, body: bytes, receive: Receive, send: Any) -> None:
    whole = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return whole.pop() if whole else await receive()

    await django_asgi(scope, replay, send)  # type: ignore[arg-type]


async def _in_a_thread(scope: Message, body: bytes, receive: Receive, send: Send) -> None:
    asker = asker_of(scope)
    try:
        answer = await threads.answer(scope, body, asker)
    except Spent:
        logger.warning("All %d web threads are taken: requests are turned away.", threads.count, extra=SPARINGLY)
        await _refuse(send, 503, BUSY, _retry_after(BUSY))
        return
    if _is_of_the_rate(answer):
        refusals.remember(asker, answer)
    elif limit := dict(answer.headers).get(b"ratelimit-limit"):
        paces.learn(asker, int(limit))
    await _send(send, answer)


def _is_of_the_rate(answer: Answer) -> bool:
    """Whether it refuses any request of theirs. A 429 may also be of one login among those of a whole network."""
    told = dict(answer.headers)
    is_spent = told.get(b"ratelimit-remaining") == b"0" and told.get(b"retry-after") == told.get(b"ratelimit-reset")
    return answer.status == TOO_MANY_REQUESTS and is_spent


def _is_call(scope: Message) -> bool:
    return bool(scope["path"] == "/graphql" and scope["method"] == "POST")


async def _say_whether_ready(send: Send) -> None:
    """503 names what fails; what the process can do without is told as well, and keeps no balancer away."""
    failing = await health.failing()
    if threads.are_spent:
        failing["threads"] = f"All {threads.count} are taken, and no more requests can wait for one."
    if failing:
        await _say(send, 503, {"status": "unavailable", "failing": failing}, _retry_after(BUSY))
    elif degraded := await health.degraded():
        await _say(send, 200, {"status": "ok", "degraded": degraded})
    else:
        await _say(send, 200, {"status": "ok"})


def _retry_after(error: Unavailable) -> tuple[bytes, bytes]:
    return b"retry-after", str(error.retry_after_s).encode()


async def _refuse(send: Send, status: int, error: DomainError, *headers: tuple[bytes, bytes]) -> None:
    await _send(send, refusal(status, error, *headers))


async def _say(send: Send, status: int, content: dict[str, Any], *headers: tuple[bytes, bytes]) -> None:
    await _send(send, as_json(status, content, *headers))


async def _send(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})
