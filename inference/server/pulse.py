"""Whether the model's thread moves: its steps and whatever it tells anybody show that; where there is neither it is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

FRESH_S = 10.0
"""What was heard so lately needs no proof."""
PATIENCE_S = 4.0
"""For the proof; less than probes wait for their answer."""


class Pulse:
    """`ask` has the model generate a token, and `answered` called when it is here. It belongs to an event loop.

    `stepped_at` says when the model last ended a step: while it reads a long prompt, or scores a thousand rows, it has
    nothing to tell, and the proof waits behind that.
    """

    def __init__(self, ask: Callable[[], None], stepped_at: Callable[[], float] = lambda: 0.0) -> None:
        self._ask = ask
        self._stepped_at = stepped_at
        self._heard_at = self._owes_since = time.monotonic()
        self._news = asyncio.Event()
        self._is_asked = False

    @property
    def silent_s(self) -> float:
        return time.monotonic() - self._moved_at

    @property
    def owing_s(self) -> float:
        """For how long it has done nothing of what it was given to do."""
        return time.monotonic() - max(self._moved_at, self._owes_since)

    def owe(self) -> None:
        """The model was given something to do."""
        self._owes_since = time.monotonic()

    def heard(self) -> None:
        self._heard_at = time.monotonic()
        self._news.set()

    def answered(self) -> None:
        """The model has done what `ask` asked for."""
        self._is_asked = False
        self.heard()

    def refused(self) -> None:
        """The model has not taken what `ask` asked for: whoever needs a proof next asks again."""
        self._is_asked = False

    def ask(self) -> None:
        """Ask for a proof, unless one is on its way."""
        if not self._is_asked:
            self._is_asked = True
            self._ask()

    async def is_felt(self) -> bool:
        """Whether the model did something within FRESH_S, or, where it did not, does within PATIENCE_S."""
        if self.silent_s <= FRESH_S:
            return True
        asked_at = time.monotonic()
        self._news.clear()
        self.ask()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._news.wait()
        except TimeoutError:
            return self._moved_at > asked_at
        return True

    @property
    def _moved_at(self) -> float:
        return max(self._heard_at, self._stepped_at())
