"""How a run looks to an operator: a moving bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from common.jobs import JobStatus
from common.shell import Screen
from common.tenancy import operator
from common.text import one_line
from training.models import Adapter, TrainingRun

LINES = 10  # of steps, where nothing moves


class RunScreen(Screen):
    @contextmanager
    def steps(self) -> Iterator[RunSteps]:
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, disable=not self.moves, refresh_per_second=10) as progress:
            yield RunSteps(self, progress)

    def ended(self, run: TrainingRun) -> None:
        """What a run that has ended came to: its adapter with its losses, or the reason that there is none."""
        if run.status != JobStatus.SUCCEEDED:
            self.ended_badly(run)
            return
        with operator():
            adapter = Adapter.objects.get(training_run=run)
        self.line(f"SUCCEEDED: adapter {one_line(str(adapter), 200)}, digest {adapter.digest}", "green")
        if adapter.test_loss is not None and adapter.base_test_loss is not None:
            self.line(f"Test loss: {adapter.test_loss:.4f}, of the base model {adapter.base_test_loss:.4f}")


class RunSteps:
    """Takes a run's events as they come."""

    def __init__(self, screen: RunScreen, progress: Progress) -> None:
        self._screen, self._progress = screen, progress
        self._task: TaskID | None = None
        self._told = 0  # tenths of the way

    def take(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "LogLine":
            self._screen.line(f"  {one_line(str(data.get('text')), 300)}", "dim")
        elif kind == "StepLogged":
            self._step(data)
        elif kind == "SampleGenerated":
            self._screen.line(f"  {one_line(data['prompt'][-60:], 60)} -> {one_line(data['continuation'], 120)}", "dim")
        elif kind == "Evaluated":
            self._screen.line(f"  step {data['step']:,}: validation loss {_loss(data.get('eval_loss'))}")

    def _step(self, data: dict[str, Any]) -> None:
        step, total = int(data["step"]), int(data["total_steps"])
        speed = data.get("tokens_per_second")
        detail = f"step {step:,} of {total:,}, loss {_loss(data.get('loss'))}" + (
            f", {speed:,.0f} tokens/s" if speed else ""
        )
        if not self._screen.moves:
            if LINES * step // total > self._told:
                self._told = LINES * step // total
                self._screen.line(f"  {detail}")
            return
        if self._task is None:
            self._task = self._progress.add_task("training", total=total, detail="")
        self._progress.update(self._task, completed=step, detail=detail)


def _loss(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
