"""Somebody who asks again and again while faults come, and remembers each answer.

with Visitor(team, lambda: team.api.look(RUN, run)) as visitor:
    ...
visitor.answers
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from tests.faults.api import Refused, Unclear
from tests.faults.team import Team


@dataclass(frozen=True)
class Answer:
    """`status`: of HTTP, None where there was no answer; `at`: CLOCK_MONOTONIC when it was there."""

    at: float
    took_s: float
    status: int | None
    retry_after_s: float | None = None
    value: Any = None
    words: str = ""


class Visitor:
    def __init__(self, team: Team, ask: Callable[[], Coroutine[Any, Any, Any]], every_s: float = 0.25) -> None:
        self.answers: list[Answer] = []
        self._team, self._ask, self._every_s = team, ask, every_s
        self._left = asyncio.Event()

    def __enter__(self) -> Visitor:
        self._visit = self._team.begin(self._go_on())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
        self._visit.result(60 + self._every_s)  # it sleeps in between

    def first_success_after(self, at: float, timeout_s: float = 60.0) -> Answer:
        """The first right answer to what was asked at that time or later; waited for."""
        deadline = time.monotonic() + timeout_s
        while True:
            for answer in self.answers:
                if answer.status == 200 and answer.at - answer.took_s >= at:
                    return answer
            assert time.monotonic() < deadline, self.answers[-3:]
            time.sleep(0.05)

    def failures(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    async def _go_on(self) -> None:
        while not self._left.is_set():
            began = time.monotonic()
            self.answers.append(await self._answer(began))
            await asyncio.sleep(max(0.0, began + self._every_s - time.monotonic()))

    async def _answer(self, began: float) -> Answer:
        status, retry_after_s, value, words = 200, None, None, ""
        try:
            value = await self._ask()
        except Refused as refusal:
            status, words = 400, str(refusal)
        except Unclear as unclear:
            status, retry_after_s, words = unclear.status, unclear.retry_after_s, str(unclear)
        now = time.monotonic()
        return Answer(now, now - began, status, retry_after_s, value, words)
