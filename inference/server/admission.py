"""Who is next at the model: requests wait here, in a line for each organization, until a place is free."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any

from inference.engine.errors import EngineError
from inference.server.http import Disconnected

RETRY_AFTER_S = 2


class Turn:
    """A place at the model. It is given back once, however often its end is told."""

    def __init__(self, give_back: Callable[[], None]) -> None:
        self._give_back: Callable[[], None] | None = give_back

    def end(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class Admission:
    """`places` requests share the model at a time, and `waiting` may wait for a place.

    Organizations take turns: whoever has least at work is next, and of those whoever waits longest for their turn, with
    the first of their requests. A quarter of the places, rounded down, is kept for others than the one that has all the
    rest. Where the lines are full, the longest one loses its newest. So a flood turns its own away, and waits for itself.

    Not safe for threads: it belongs to an event loop.
    """

    def __init__(self, *, places: int, waiting: int) -> None:
        self._places_each = places - places // 4
        self._free = places
        self._most_waiting = waiting
        self._at_work: Counter[str] = Counter()
        self._lines: OrderedDict[str, deque[asyncio.Future[Turn]]] = OrderedDict()
        self._closed_with: Callable[[], EngineError] | None = None
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    @property
    def at_work(self) -> int:
        return self._at_work.total()

    @property
    def waiting(self) -> int:
        return sum(map(len, self._lines.values()))

    @property
    def is_closed(self) -> bool:
        return self._closed_with is not None

    def of_each(self) -> dict[str, tuple[int, int]]:
        """By organization: how many of its requests are at work, and how many wait."""
        everybody = {*self._at_work, *self._lines}
        return {each: (self._at_work[each], len(self._lines.get(each, ()))) for each in everybody}

    async def take(self, owner: str, deadline: float, gone: asyncio.Future[Any]) -> Turn:
        """Wait for a turn until `deadline`, by the loop's clock. `gone` is done once nobody wants it any more.

        Raises EngineError QUEUE_FULL, WAITED_TOO_LONG, and what `close` was given; and Disconnected.
        """
        if self._closed_with is not None:
            raise self._closed_with()
        if gone.done():
            raise Disconnected
        if self._may_start(owner):
            return self._started(owner)
        self._find_room(owner)
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Turn] = loop.create_future()
        self._lines.setdefault(owner, deque()).append(place)
        has_come = False
        try:
            patience_s = max(0.0, deadline - loop.time())
            await asyncio.wait({place, gone}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if place.done():
                turn = place.result()
                has_come = True
                return turn
            raise Disconnected if gone.done() else waited_too_long()
        finally:
            if not has_come:
                self._give_up(owner, place)

    def close(self, refusal: Callable[[], EngineError]) -> None:
        """From now on nobody gets a turn: whoever waits, and whoever comes, is refused. What is at work goes on."""
        self._closed_with = refusal
        for line in list(self._lines.values()):
            for place in list(line):
                _refuse(place, refusal())
        self._lines.clear()

    async def idle(self) -> None:
        """Return once nothing is at work."""
        await self._is_idle.wait()

    def _may_start(self, owner: str) -> bool:
        return self._free > 0 and self._at_work[owner] < self._places_each

    def _started(self, owner: str) -> Turn:
        self._free -= 1
        self._at_work[owner] += 1
        self._is_idle.clear()
        return Turn(lambda: self._ended(owner))

    def _ended(self, owner: str) -> None:
        self._free += 1
        self._at_work[owner] -= 1
        if not self._at_work[owner]:
            del self._at_work[owner]
        self._go_on()
        if not self._at_work:
            self._is_idle.set()

    def _go_on(self) -> None:
        """Start whoever may; with more in line, they go to the end."""
        while True:
            owner = min(filter(self._may_start, self._lines), key=self._at_work.__getitem__, default=None)
            if owner is None:
                return
            place = self._lines[owner][0]
            self._leave(owner, place)
            if owner in self._lines:
                self._lines.move_to_end(owner)
            if not place.done():
                place.set_result(self._started(owner))

    def _find_room(self, owner: str) -> None:
        if self.waiting < self._most_waiting:
            return
        greediest = max(self._lines, key=lambda each: len(self._lines[each]), default=owner)
        if len(self._lines.get(greediest, ())) <= len(self._lines.get(owner, ())) + 1:
            raise self._queue_full()
        newest, refusal = self._lines[greediest][-1], self._queue_full()
        self._leave(greediest, newest)
        _refuse(newest, refusal)

    def _queue_full(self) -> EngineError:
        message = f"{self.waiting} requests wait already; try again in {RETRY_AFTER_S} seconds."
        return EngineError("QUEUE_FULL", message, retry_after_s=RETRY_AFTER_S)

    def _give_up(self, owner: str, place: asyncio.Future[Turn]) -> None:
        """Whoever waited has gone, or was refused."""
        self._leave(owner, place)
        if place.done() and not place.cancelled() and place.exception() is None:
            place.result().end()  # it came at the same moment

    def _leave(self, owner: str, place: asyncio.Future[Turn]) -> None:
        line = self._lines.get(owner)
        if line is not None and place in line:
            line.remove(place)
            if not line:
                del self._lines[owner]


def _refuse(place: asyncio.Future[Turn], error: EngineError) -> None:
    if not place.done():
        place.set_exception(error)


def waited_too_long() -> EngineError:
    message = "It has waited for its turn at the model as long as it may, and nothing was generated; try again."
    return EngineError("WAITED_TOO_LONG", message, retry_after_s=RETRY_AFTER_S)
