"""What the model's thread says to one request, and whether whoever asked is still there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

from inference.engine.errors import EngineError
from inference.engine.request import Chunk
from inference.server.http import Disconnected, Receive

Event = TypeVar("Event")


class Inbox(Generic[Event]):
    """Events from the model's thread for one request. Iterating gives all that is new, at least one at a time.

    It raises an EngineError among the events when its turn comes, and Disconnected once the client has gone. `heard` is
    called in the event loop with each event of the model's, at once, however slowly it is read.
    """

    def __init__(self, heard: Callable[[Event | EngineError], None] = lambda event: None) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event | EngineError | Disconnected] = asyncio.Queue()
        self._heard = heard

    def put(self, event: Event | EngineError) -> None:
        """Callable from any thread; never blocks, so a slow reader holds nobody up."""
        self._loop.call_soon_threadsafe(self._take, event)

    def give_up(self) -> None:
        """The client has gone."""
        self._queue.put_nowait(Disconnected())

    def _take(self, event: Event | EngineError) -> None:
        self._queue.put_nowait(event)
        self._heard(event)

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


def is_last(event: object) -> bool:
    """Whether the model has done with the request that it says this to."""
    return not isinstance(event, Chunk) or event.prediction is not None


@asynccontextmanager
async def listening(receive: Receive, inbox: Inbox[Any]) -> AsyncIterator[asyncio.Task[None]]:
    """Within this the inbox is told when the client disconnects; the task that is given ends then."""

    async def wait() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        inbox.give_up()

    gone = asyncio.create_task(wait())
    try:
        yield gone
    finally:
        gone.cancel()
