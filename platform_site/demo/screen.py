"""How the demo looks: moving bars and panels on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 110
SIDE_BY_SIDE_FROM = 90  # columns
ANSWER_LINES = 14
PLAIN_EVERY_S = 10.0


class Bars(Protocol):
    def update(self, name: str, share: float, detail: str) -> None:
        """`share` is from 0 to 1; what `detail` says stands behind the bar."""


class Screen:
    def __init__(self, file: TextIO | None = None) -> None:
        file = file or sys.stdout
        width = None if file.isatty() or "COLUMNS" in os.environ else PLAIN_WIDTH
        self.console = Console(file=file, width=width, highlight=False)
        self.moves = self.console.is_interactive
        self.has_blocks = not self.console.options.ascii_only
        self.room_for_a_sparkline = max(0, min(16, self.console.width - 104)) if self.moves and self.has_blocks else 0
        self._chapters = 0

    def title(self, title: str, *lines: str) -> None:
        self.console.print(f"\n[bold]{title}[/bold]")
        self.lines(*lines, indent=0)

    def chapter(self, title: str) -> None:
        self._chapters += 1
        self.console.print()
        self.console.print(f"[bold cyan]{self._chapters}  {title}[/bold cyan]")

    def lines(self, *lines: str, indent: int = 3) -> None:
        """Plain text, not markup; sentences are wrapped on a terminal, and a path stays whole, to be copied."""
        for line in lines:
            if self.moves and " " in line.strip():
                self.console.print(Padding(Text(line), (0, 0, 0, indent), expand=False))
            else:
                self.console.print(Text((" " * indent + line).rstrip()), soft_wrap=True)

    @contextmanager
    def spinner(self, text: str) -> Iterator[None]:
        """While something is waited for that has no measure."""
        if self.moves:
            with self.console.status(f"{text} ...", spinner="dots" if self.has_blocks else "line"):
                yield
        else:
            self.lines(f"{text} ...")
            yield

    @contextmanager
    def bars(self) -> Iterator[Bars]:
        if not self.moves:
            yield _PlainBars(self)
            return
        columns = (
            TextColumn("   {task.description}"),
            BarColumn(bar_width=max(10, min(30, self.console.width - 76))),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        with Progress(*columns, console=self.console, refresh_per_second=10) as progress:
            yield _MovingBars(progress)

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """The first column is text, the others are numbers."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="right" if index else "left")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        indented = Table.grid(padding=(0, 0, 0, 3))
        indented.add_row(table)
        self.console.print(indented)

    def question(self, title: str, prompt: str, answer: str, language: str) -> None:
        """A prompt, and what the data says should follow."""
        self.console.print()
        self.console.print(Rule(Text(title), align="left", style="dim"))
        self.console.print(_code(prompt, language))
        panel = Panel(_code(answer, language), title="the data's own answer", title_align="left", border_style="dim")
        self.console.print(panel)

    def side_by_side(self, left: tuple[str, str], right: tuple[str, str], language: str) -> None:
        """Two (title, text) beside each other, or one below the other on a narrow terminal."""
        panels = [_panel(*left, "yellow", language), _panel(*right, "green", language)]
        if self.console.width < SIDE_BY_SIDE_FROM:
            self.console.print(Group(*panels))
            return
        table = Table.grid(expand=True, padding=(0, 0))
        table.add_column(ratio=1)
        table.add_column(ratio=1)
        table.add_row(*panels)
        self.console.print(table)

    @contextmanager
    def typing(self, title: str, language: str) -> Iterator[Callable[[str], None]]:
        """Shows a text as it grows; it makes room for what comes next when it is whole."""
        if not self.moves:
            yield lambda text: None
            return
        with Live(console=self.console, transient=True, refresh_per_second=15) as live:
            yield lambda text: live.update(_panel(title, text, "green", language))


class _MovingBars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def update(self, name: str, share: float, detail: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1.0, detail="")
        self._progress.update(self._tasks[name], completed=share, detail=detail)


class _PlainBars:
    """A line when something begins, when it ends, and every ten seconds between."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._said: dict[str, float] = {}

    def update(self, name: str, share: float, detail: str) -> None:
        now, said = time.monotonic(), self._said.get(name)
        if not detail or said == float("inf") or (share < 1 and said is not None and now - said < PLAIN_EVERY_S):
            return
        self._said[name] = float("inf") if share >= 1 else now
        self._screen.lines(f"{name.strip()}: {detail}")


def _panel(title: str, text: str, style: str, language: str) -> Panel:
    return Panel(_code(text, language), title=Text(title), title_align="left", border_style=style)


def _code(text: str, language: str) -> Syntax:
    return Syntax(trimmed(text), language, theme="ansi_dark", background_color="default", word_wrap=True)


def trimmed(text: str, lines: int = ANSWER_LINES) -> str:
    """Without empty lines around it, cut where it is long, and without what a terminal would take for a command."""
    visible = "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)
    whole = visible.strip("\n").rstrip().split("\n")
    return "\n".join(whole if len(whole) <= lines else [*whole[: lines - 1], "..."])
