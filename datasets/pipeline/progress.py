"""What each step has done so far: the counts of its report, told live as StepProgressed events."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from common.child import EventLog
from datasets.pipeline.rows import EXAMPLES, Example, Outcome, Rejection

SECONDS_BETWEEN_EVENTS = 0.2


@dataclass
class StepReport:
    name: str
    status: str = "PENDING"
    rows_in: int = 0
    rows_kept: int = 0
    rows_changed: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    examples: list[Example] = field(default_factory=list)

    def count(self, rows_in: int, rows_kept: int, rejections: Sequence[Rejection] = ()) -> None:
        assert rows_in == rows_kept + len(rejections), f"{self.name} lost rows: {rows_in} in, {rows_kept} kept"
        self.rows_in += rows_in
        self.rows_kept += rows_kept
        self.reasons.update([rejection.reason for rejection in rejections])

    def note_changes(self, outcome: Outcome) -> None:
        self.rows_changed += outcome.changed
        self.examples += outcome.examples[: EXAMPLES - len(self.examples)]

    def to_json(self) -> dict[str, Any]:
        """The counts, without the time that they took: the same rows give the same JSON."""
        return {
            "name": self.name,
            "status": self.status,
            "rows_in": self.rows_in,
            "rows_kept": self.rows_kept,
            "rows_dropped": self.rows_in - self.rows_kept,
            "rows_changed": self.rows_changed,
            "reasons": [{"key": key, "count": count} for key, count in sorted_counts(self.reasons)],
        }


def sorted_counts(counts: Counter[str]) -> list[tuple[str, int]]:
    """The most frequent first, equals by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


class Progress:
    """Writes the steps' events: each start and end, and between them at most five a second in all."""

    def __init__(self, events: EventLog, reports: list[StepReport]) -> None:
        self._events = events
        self._reports = reports
        self._share = 0.0
        self._begun: dict[str, float] = {}
        self._told: dict[str, tuple[int, int, float]] = {}
        self._last = 0.0

    def start(self, report: StepReport) -> None:
        report.status, self._share = "RUNNING", 0.0
        self._tell(report, 0.0)

    def prepared(self, report: StepReport, share: float) -> None:
        """A step that had to see all rows before its pass has done this much of its work; the pass is the rest of it."""
        self._begun[report.name], self._share = share, 0.0

    def advance(self, share: float) -> None:
        """Tell of the step that has waited longest, if it has news; `share` of its pass is done."""
        self._share = share
        if time.monotonic() - self._last < SECONDS_BETWEEN_EVENTS:
            return
        running = [report for report in self._reports if report.status == "RUNNING" and self._has_news(report)]
        if running:
            longest = min(running, key=lambda report: list(self._told).index(report.name))
            self._tell(longest, self._share_of(longest))

    def end(self, report: StepReport, status: str) -> None:
        report.status = status
        self._tell(report, self._share_of(report) if status == "FAILED" else 1.0)

    def _share_of(self, report: StepReport) -> float:
        begun = self._begun.get(report.name, 0.0)
        return begun + (1 - begun) * self._share

    def _has_news(self, report: StepReport) -> bool:
        return self._told[report.name] != (report.rows_in, report.rows_kept, self._share_of(report))

    def _tell(self, report: StepReport, share: float) -> None:
        self._told.pop(report.name, None)  # told last: to the end of the order
        self._told[report.name] = (report.rows_in, report.rows_kept, share)
        self._last = time.monotonic()
        self._events.write(
            "StepProgressed",
            name=report.name,
            status=report.status,
            rows_in=report.rows_in,
            rows_kept=report.rows_kept,
            progress=round(share, 4),
        )
