"""Django's WSGI application in a fixed pool of threads, each of which keeps its connection, and a bounded line before it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from typing import Any

from a2wsgi.wsgi import build_environ

from platform_site.answers import Answer
from platform_site.askers import Asker
from platform_site.frames import with_room
from platform_site.turns import Spent, Turns

PATIENCE_S = 10.0
AT_WORK = 4
LENT_S = 0.1


class WebThreads:
    """`count` requests are answered at a time; as many again wait for a thread, each for at most `patience_s`.

    Only `at_work` of them start at a time: Python lets one thread compute, and many at once are all late, where one after
    the other most are early. A place at work is lent for `lent_s`: whoever takes longer waits for something, a lock or
    another process, and keeps nobody else from working meanwhile (docs/decisions/0030-several-web-processes.md).
    """

    def __init__(
        self,
        wsgi: Callable[..., Any],
        count: int,
        patience_s: float = PATIENCE_S,
        *,
        at_work: int = AT_WORK,
        lent_s: float = LENT_S,
    ) -> None:
        self.count = count
        self._wsgi = wsgi
        self._patience_s = patience_s
        self._lent_s = lent_s
        self._stands_still = False
        self._turns = Turns(count, at_work)
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="web")

    @property
    def are_spent(self) -> bool:
        """Whether somebody's only request, if it came now, would be turned away."""
        return self._no_thread_comes_free or self._turns.are_spent

    @property
    def _no_thread_comes_free(self) -> bool:
        return self._stands_still and not self._turns.has_free_thread

    async def answer(self, scope: dict[str, Any], body: bytes, asker: Asker) -> Answer:
        """The whole of it: whoever reads slowly holds its few megabytes, and no thread.

        `asker` tells whose turn it is. Raises Spent.
        """
        if self._no_thread_comes_free:
            raise Spent
        async with self._turn(asker):
            # a context each: what one request sets, the next one in the thread must not find
            call = partial(contextvars.copy_context().run, self._call, scope, body)
            return await asyncio.get_running_loop().run_in_executor(self._threads, with_room, call)

    @asynccontextmanager
    async def _turn(self, asker: Asker) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._patience_s):
                turn = await self._turns.take(asker)
        except TimeoutError:
            if not self._turns.has_free_thread:
                self._stands_still = True  # until one comes free, nobody else needs to wait in order to learn that
            raise Spent from None
        ending = asyncio.get_running_loop().call_later(self._lent_s, turn.lend)
        try:
            yield
        finally:
            ending.cancel()
            self._stands_still = False
            turn.end()

    def _call(self, scope: dict[str, Any], body: bytes) -> Answer:
        started: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> None:
            started["status"] = int(status[:3])
            started["headers"] = [(name.lower().encode("latin1"), value.encode("latin1")) for name, value in headers]

        chunks = self._wsgi(build_environ(scope, BytesIO(body)), start_response)
        try:
            content = b"".join(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()  # Django ends its request here
        return Answer(**started, body=content)
