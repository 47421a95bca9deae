"""Whoever is over a rate of requests is told so again without a thread: a flood costs little more than its bytes."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from platform_site.answers import Answer
from platform_site.askers import Asker

HOLDS_S = 1.0


class Refusals:
    """What was answered lately to those who were refused; each refusal holds for `HOLDS_S`, and no longer than that.

    No refusal tells of less than a second until there is room again, so that nobody is refused who would not have been,
    but for what comes free within that second, and can be had after it. Each process remembers its own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[Asker, tuple[float, Answer]] = OrderedDict()  # the oldest first

    def remember(self, asker: Asker, answer: Answer) -> None:
        self._forget()
        self._known[asker] = (self._clock() + HOLDS_S, answer)
        self._known.move_to_end(asker)

    def of(self, asker: Asker) -> Answer | None:
        """What they were answered within the last second, if it was a refusal."""
        until, answer = self._known.get(asker, (0.0, None))
        return answer if self._clock() < until else None

    def _forget(self) -> None:
        now = self._clock()
        while self._known and next(iter(self._known.values()))[0] <= now:
            self._known.popitem(last=False)
