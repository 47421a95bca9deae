"""Who starts next where more is asked than can be answered at a time: those who ask take turns."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque

from platform_site.askers import Asker


class Spent(Exception):
    """No thread is free, and the line is as long as it may be, or did not move in time."""


class Turn:
    """A thread, and a place at work: each is given back once."""

    def __init__(self, turns: Turns, asker: Asker) -> None:
        self._turns = turns
        self._asker = asker
        self._has_place = self._has_thread = True

    def lend(self) -> None:
        """Give the place to somebody else: whoever has it waits for something."""
        if self._has_place:
            self._has_place = False
            self._turns._give_back(self._asker, place=True)

    def end(self) -> None:
        if self._has_thread:
            self._has_thread, has_place, self._has_place = False, self._has_place, False
            self._turns._give_back(self._asker, place=has_place, thread=True)


class Turns:
    """`threads` requests are in hand at a time, and at most `at_work` of them compute; twice as many as threads may be inside.

    Whoever has least in hand is next, and of those whoever waits longest for their turn, with the first of their requests. Nobody alone has more than three quarters of
    the threads, or half of the places. Where the line is full, whoever has most in it loses the newest. So a flood turns
    its own away, and a request beside it finds nearly what it would find without (docs/decisions/0035-askers-take-turns.md).

    Not safe for threads: it belongs to an event loop.
    """

    def __init__(self, threads: int, at_work: int) -> None:
        self._most_inside = 2 * threads
        self._threads_each = threads - threads // 4
        self._places_each = max(1, at_work // 2)
        self._free_threads = threads
        self._free_places = at_work
        self._in_hand: Counter[Asker] = Counter()
        self._at_work: Counter[Asker] = Counter()
        self._line: OrderedDict[Asker, deque[asyncio.Future[Turn]]] = OrderedDict()

    @property
    def has_free_thread(self) -> bool:
        return self._free_threads > 0

    @property
    def are_spent(self) -> bool:
        """Whether somebody who has nothing in hand or in line would be turned away now."""
        return self._is_full and max(map(len, self._line.values())) <= 1

    async def take(self, asker: Asker) -> Turn:
        """Wait for a turn. Raises Spent where the line is full."""
        if self._may_start(asker):
            return self._started(asker)
        self._find_room(asker)
        waiting: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._line.setdefault(asker, deque()).append(waiting)
        try:
            return await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                waiting.result().end()  # it came, and whoever waited for it is gone
            else:
                self._leave(asker, waiting)
            raise

    @property
    def _is_full(self) -> bool:
        return self._in_hand.total() + sum(map(len, self._line.values())) >= self._most_inside

    def _may_start(self, asker: Asker) -> bool:
        return (
            self._free_threads > 0
            and self._free_places > 0
            and self._in_hand[asker] < self._threads_each
            and self._at_work[asker] < self._places_each
        )

    def _started(self, asker: Asker) -> Turn:
        self._free_threads -= 1
        self._free_places -= 1
        self._in_hand[asker] += 1
        self._at_work[asker] += 1
        return Turn(self, asker)

    def _find_room(self, asker: Asker) -> None:
        if not self._is_full:
            return
        greediest = max(self._line, key=lambda each: len(self._line[each]))
        if len(self._line[greediest]) <= len(self._line.get(asker, ())) + 1:
            raise Spent
        newest = self._line[greediest][-1]
        self._leave(greediest, newest)
        if not newest.done():
            newest.set_exception(Spent())

    def _leave(self, asker: Asker, waiting: asyncio.Future[Turn]) -> None:
        theirs = self._line.get(asker)
        if theirs is not None and waiting in theirs:
            theirs.remove(waiting)
            if not theirs:
                del self._line[asker]

    def _go_on(self) -> None:
        """Start whoever may; with more in the line, they go to its end."""
        while self._free_threads and self._free_places:
            asker = min(filter(self._may_start, self._line), key=self._in_hand.__getitem__, default=None)
            if asker is None:
                return
            waiting = self._line[asker][0]
            self._leave(asker, waiting)
            if asker in self._line:
                self._line.move_to_end(asker)
            if not waiting.done():
                waiting.set_result(self._started(asker))

    def _give_back(self, asker: Asker, *, place: bool = False, thread: bool = False) -> None:
        self._free_places += place
        self._free_threads += thread
        self._at_work[asker] -= place
        self._in_hand[asker] -= thread
        for counted in (self._at_work, self._in_hand):
            if not counted[asker]:
                del counted[asker]
        self._go_on()
