"""Who is next at the model: requests wait here, in a line for each organization, until a place and room are free."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True, eq=False)
class _Asked:
    """A request that waits."""

    tokens: int
    turn: asyncio.Future[Turn]


class Admission:
    """`places` requests share the model and its room for `room()` tokens at a time; `waiting` may wait for both.

    Organizations take turns: whoever has least at work is next, and of those whoever waits longest for their turn, with
    the first of their requests. A quarter of the places, rounded down, is kept for others than the one that has all the
    rest; so is a quarter of the room, but for a request that is larger than the rest, which may have it once its
    organization has no other. Whoever is next and lacks room holds up all the others: nobody overtakes a long request.
    Where the lines are full, the longest one loses its newest. So a flood turns its own away, and waits for itself.

    Not safe for threads: it belongs to an event loop.
    """

    def __init__(self, *, places: int, waiting: int, room: Callable[[], int] = lambda: 0) -> None:
        """`room` is asked from the first request on; 0 stands for room that has no bounds."""
        self._places_each = places - places // 4
        self._free = places
        self._most_waiting = waiting
        self._room = room
        self._at_work: Counter[str] = Counter()
        self._tokens: Counter[str] = Counter()
        self._lines: OrderedDict[str, deque[_Asked]] = OrderedDict()
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

    async def take(self, owner: str, deadline: float, gone: asyncio.Future[Any], tokens: int = 0) -> Turn:
        """Wait for a turn with room for `tokens` until `deadline`, by the loop's clock; one that needs more than all the
        room gets all of it. `gone` is done once nobody wants it any more.

        Raises EngineError QUEUE_FULL, WAITED_TOO_LONG, and what `close` was given; and Disconnected.
        """
        if self._closed_with is not None:
            raise self._closed_with()
        if gone.done():
            raise Disconnected
        loop = asyncio.get_running_loop()
        asked = _Asked(min(tokens, self._room()), loop.create_future())
        if owner not in self._lines and self._next() is None and self._may_start(owner, asked) and self._fits(asked):
            return self._started(owner, asked)
        self._make_way(owner)
        self._lines.setdefault(owner, deque()).append(asked)
        self._go_on()  # it may be before one that waits for room
        has_come = False
        try:
            patience_s = max(0.0, deadline - loop.time())
            await asyncio.wait({asked.turn, gone}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
            if asked.turn.done():
                turn = asked.turn.result()
                has_come = True
                return turn
            raise Disconnected if gone.done() else waited_too_long()
        finally:
            if not has_come:
                self._give_up(owner, asked)

    def close(self, refusal: Callable[[], EngineError]) -> None:
        """From now on nobody gets a turn: whoever waits, and whoever comes, is refused. What is at work goes on."""
        self._closed_with = refusal
        for line in list(self._lines.values()):
            for asked in list(line):
                _refuse(asked, refusal())
        self._lines.clear()

    async def idle(self) -> None:
        """Return once nothing is at work."""
        await self._is_idle.wait()

    def _may_start(self, owner: str, asked: _Asked) -> bool:
        """Whether there is a place, and the owner's share allows it."""
        if not self._free or self._at_work[owner] >= self._places_each:
            return False
        room, has = self._room(), self._tokens[owner]
        return not has or not asked.tokens or has + asked.tokens <= room - room // 4

    def _fits(self, asked: _Asked) -> bool:
        return not asked.tokens or self._tokens.total() + asked.tokens <= self._room()

    def _started(self, owner: str, asked: _Asked) -> Turn:
        self._free -= 1
        self._at_work[owner] += 1
        self._tokens[owner] += asked.tokens
        self._is_idle.clear()
        return Turn(lambda: self._ended(owner, asked))

    def _ended(self, owner: str, asked: _Asked) -> None:
        self._free += 1
        self._at_work[owner] -= 1
        self._tokens[owner] -= asked.tokens
        if not self._at_work[owner]:
            del self._at_work[owner], self._tokens[owner]
        self._go_on()
        if not self._at_work:
            self._is_idle.set()

    def _next(self) -> str | None:
        """Whose turn it is, of those who may start as soon as there is room."""
        may_start = [owner for owner, line in self._lines.items() if self._may_start(owner, line[0])]
        return min(may_start, key=self._at_work.__getitem__, default=None)

    def _go_on(self) -> None:
        """Start whoever is next; with more in line, they go to the end."""
        while (owner := self._next()) is not None and self._fits(self._lines[owner][0]):
            asked = self._lines[owner][0]
            self._leave(owner, asked)
            if owner in self._lines:
                self._lines.move_to_end(owner)
            if not asked.turn.done():
                asked.turn.set_result(self._started(owner, asked))

    def _make_way(self, owner: str) -> None:
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

    def _give_up(self, owner: str, asked: _Asked) -> None:
        """Whoever waited has gone, or was refused."""
        self._leave(owner, asked)
        turn = asked.turn
        if turn.done() and not turn.cancelled() and turn.exception() is None:
            turn.result().end()  # it came at the same moment
        else:
            self._go_on()  # it may have held up others

    def _leave(self, owner: str, asked: _Asked) -> None:
        line = self._lines.get(owner)
        if line is not None and asked in line:
            line.remove(asked)
            if not line:
                del self._lines[owner]


def _refuse(asked: _Asked, error: EngineError) -> None:
    if not asked.turn.done():
        asked.turn.set_exception(error)


def waited_too_long() -> EngineError:
    message = "It has waited for its turn at the model as long as it may, and nothing was generated; try again."
    return EngineError("WAITED_TOO_LONG", message, retry_after_s=RETRY_AFTER_S)
