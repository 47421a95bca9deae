"""Requests that come at random, how long they wait, and the clock that tells so: the contender's own processor time."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness import quantile

MEDIAN_TOKENS = 32
SIGMA = 1.0
"""Of the logarithm of an answer's tokens."""
LONGEST_TOKENS = 192


@dataclass(frozen=True)
class Arrival:
    at: float
    """In mean times between two arrivals, from the first one on."""
    prompt: int
    adapter: int
    new_tokens: int


def traffic(seed: int, requests: int, prompts: int, adapters: int, longest: int = LONGEST_TOKENS) -> list[Arrival]:
    """A Poisson process of requests whose answers have log-normal lengths; each adapter is as likely as another."""
    r = random.Random(seed)
    found, at = [], 0.0
    for number in range(requests):
        tokens = min(longest, max(1, round(MEDIAN_TOKENS * math.exp(r.gauss(0, SIGMA)))))
        found.append(Arrival(at, number % prompts, r.randrange(adapters), tokens))
        at += r.expovariate(1)
    return found


class Clock:
    """Seconds of this process's time on a processor; where there is nothing to do, it goes on to when there is.

    Others' work on the machine does not make it go faster, and the time in which a contender is idle takes none.
    """

    def __init__(self) -> None:
        self._zero = time.process_time()

    def now(self) -> float:
        return time.process_time() - self._zero

    def skip_to(self, moment: float) -> None:
        self._zero = min(self._zero, time.process_time() - moment)


@dataclass
class Log:
    """When each request came, had its first token, and its last, and which tokens they were; by its number."""

    came: dict[int, float] = field(default_factory=dict)
    first: dict[int, float] = field(default_factory=dict)
    last: dict[int, float] = field(default_factory=dict)
    tokens: dict[int, list[int]] = field(default_factory=dict)

    def add(self, number: int, token: int, now: float, of: int) -> None:
        tokens = self.tokens.setdefault(number, [])
        if not tokens:
            self.first[number] = now
        tokens.append(token)
        if len(tokens) == of:
            self.last[number] = now

    def summary(self, asked: Sequence[Arrival]) -> dict[str, float]:
        """`tokens_per_s` is of the time from the first arrival to the last token: what is put off is not won."""
        assert [len(self.tokens[number]) for number in range(len(asked))] == [each.new_tokens for each in asked]
        waits = [self.first[number] - self.came[number] for number in range(len(asked))]
        seconds = max(self.last.values()) - min(self.came.values())
        tokens = sum(each.new_tokens for each in asked)
        return {"tokens": tokens, "tokens_per_s": tokens / seconds, "p95_s": quantile(waits, 0.95)}


class Queue:
    """Who has come by now, and who will."""

    def __init__(self, asked: Sequence[Arrival], rate: float | None, clock: Clock, log: Log) -> None:
        """`rate` is of arrivals a second; None: all at once."""
        self._moments = [0.0 if rate is None else each.at / rate for each in asked]
        self._next = 0
        self._clock = clock
        self._log = log

    @property
    def is_over(self) -> bool:
        return self._next == len(self._moments)

    def come(self) -> list[int]:
        """The numbers of those who have come since the last call."""
        now, found = self._clock.now(), []
        while not self.is_over and self._moments[self._next] <= now:
            self._log.came[self._next] = self._moments[self._next]
            found.append(self._next)
            self._next += 1
        return found

    def wait(self) -> None:
        """There is nothing to do until the next one comes."""
        self._clock.skip_to(self._moments[self._next])


def as_json(asked: Sequence[Arrival]) -> list[list[Any]]:
    return [[each.at, each.prompt, each.adapter, each.new_tokens] for each in asked]


def from_json(asked: Sequence[Sequence[Any]]) -> list[Arrival]:
    return [Arrival(*each) for each in asked]
