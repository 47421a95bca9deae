"""What the events of a run add up to, while it runs and when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from statistics import mean
from typing import Any

from platform_site.demo.report import TrainingFigures

BLOCKS = "▁▂▃▄▅▆▇█"


class Course:
    """A run's course, from its StepLogged events. Where a later attempt takes a step again, its value counts."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.total_steps: int | None = None
        self.tokens_per_second: float | None = None
        self.validation_loss: float | None = None
        self._tokens = 0
        self._busy_s = 0.0
        self._first: tuple[int, datetime] | None = None
        self._last: tuple[int, datetime] | None = None

    def add(self, event: dict[str, Any]) -> None:
        step, at = event["step"], datetime.fromisoformat(event["at"])
        if event["loss"] is not None:
            self.losses = {earlier: loss for earlier, loss in self.losses.items() if earlier < step}
            self.losses[step] = event["loss"]
        self.total_steps = event["totalSteps"]
        self.tokens_per_second = event["tokensPerSecond"]
        # each event's rate is that of its own tokens, so that validations and checkpoints are not counted
        tokens = (event["tokens"] or 0) - self._tokens
        if self.tokens_per_second and tokens > 0:
            self._busy_s += tokens / self.tokens_per_second
        self._tokens = event["tokens"] or 0
        if self._last is None or step <= self._last[0]:
            self._first = (step, at)
        self._last = (step, at)

    @property
    def step(self) -> int:
        return self._last[0] if self._last else 0

    @property
    def share(self) -> float:
        return self.step / self.total_steps if self.total_steps else 0.0

    @property
    def recent_loss(self) -> float:
        """One step's loss says little: a step has a few hundred tokens."""
        return mean(list(self.losses.values())[-20:])

    @property
    def remaining_s(self) -> float | None:
        """At the pace so far, validations and checkpoints included."""
        if self._first is None or self._last is None or self.total_steps is None or self._last[0] == self._first[0]:
            return None
        pace_s = (self._last[1] - self._first[1]).total_seconds() / (self._last[0] - self._first[0])
        return pace_s * (self.total_steps - self._last[0])

    def figures(self, seconds: float) -> TrainingFigures:
        losses = list(self.losses.values())
        few = max(1, len(losses) // 20)
        return TrainingFigures(
            steps=self.step,
            tokens=self._tokens,
            tokens_per_second=round(self._tokens / self._busy_s, 1) if self._busy_s else 0.0,
            first_loss=mean(losses[:few]),
            last_loss=mean(losses[-few:]),
            seconds=round(seconds, 2),
        )


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as a line of at most `width` blocks, each the mean of its share of them."""
    count = min(width, len(values))
    if count == 0:
        return ""
    edges = [index * len(values) // count for index in range(count + 1)]
    means = [mean(values[start:end]) for start, end in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((mean - low) * scale)] for mean in means)


def clock(seconds: float) -> str:
    """75 as 1:15."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
