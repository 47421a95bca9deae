"""How a version in the making looks to an operator: moving bars on a terminal, a line for each step elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from common.shell import Screen
from common.text import one_line
from datasets.models import DatasetVersion

MAX_REASONS = 10
EXCERPT_CHARACTERS = 90


class MakingScreen(Screen):
    @contextmanager
    def reading(self, name: str, size: int) -> Iterator[Callable[[int], None]]:
        """While a file is read: called with how many bytes more."""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn())
        with Progress(*columns, console=self.console, transient=True, disable=not self.moves) as progress:
            task = progress.add_task(one_line(name, 40), total=size)
            yield lambda count: progress.advance(task, count)

    @contextmanager
    def steps(self) -> Iterator[Steps]:
        columns = (
            TextColumn("  {task.description:<12}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        with Progress(*columns, console=self.console, disable=not self.moves, refresh_per_second=10) as progress:
            yield Steps(self, progress)

    def result(self, version: DatasetVersion, examples: dict[str, str]) -> None:
        """What became of the rows; `examples` has a line for some of the reasons."""
        self.line(f"{version.rows_in or 0:,} rows in, {version.rows_kept or 0:,} kept")
        self._table([(split["name"].lower(), f"{split['rows']:,}", "") for split in version.splits])
        reasons = [reason for step in version.steps for reason in step["reasons"]]
        reasons.sort(key=lambda reason: -reason["count"])
        if reasons:
            self.line("Left out:")
            shown = [(r["key"], f"{r['count']:,}", examples.get(r["key"], "")) for r in reasons[:MAX_REASONS]]
            self._table(shown)
        if version.pii_findings:
            self.line("Secrets and personal data found:")
            self._table([(found["key"], f"{found['count']:,}", "") for found in version.pii_findings])

    def _table(self, rows: list[tuple[str, str, str]]) -> None:
        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column()
        table.add_column(justify="right")
        table.add_column(overflow="ellipsis", no_wrap=True)
        for name, count, example in rows:
            table.add_row(Text(f"  {name}"), Text(count), Text(one_line(example, EXCERPT_CHARACTERS), "dim"))
        self.console.print(table)


class Steps:
    """Takes a version's events as they come."""

    def __init__(self, screen: MakingScreen, progress: Progress) -> None:
        self._screen, self._progress = screen, progress
        self._tasks: dict[str, TaskID] = {}

    def take(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "LogLine":
            self._screen.line(f"  {one_line(str(data.get('text')), 300)}", "dim")
        elif kind == "StepProgressed":
            self._step(data)

    def _step(self, data: dict[str, Any]) -> None:
        name, status = str(data["name"]), str(data["status"])
        detail = f"{data['rows_in']:,} in, {data['rows_kept']:,} kept"
        if status in ("SKIPPED", "FAILED"):
            detail = status.lower() if status == "SKIPPED" else f"{detail}, failed"
        if not self._screen.moves:
            if status not in ("PENDING", "RUNNING"):
                self._screen.line(f"  {name}: {detail}")
            return
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1.0, detail="")
        share = float(data.get("progress") or 0.0)
        self._progress.update(self._tasks[name], completed=share, detail=detail)
