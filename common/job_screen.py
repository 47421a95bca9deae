"""How jobs look to an operator: within the width of a terminal, and as whole lines in a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from common.job_report import Entry, Report, Section
from common.jobs import JobStatus
from common.lookup import SHORT, short
from common.text import age, one_line, spelled

STYLES = {
    JobStatus.RUNNING: "cyan",
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
}
STUCK = "bold red"
HEADINGS = ("ID", "ORGANIZATION", "NAME", "STATUS", "FOR", "ATTEMPT", "LEASE")
SHRUNK = (1, 2)  # the columns that people worded
LEAST = 8
GAP = 2
INDENT = SHORT + 2 + GAP


def console(file: TextIO) -> Console:
    """A pipe has no width: nothing is cut there, unless COLUMNS asks for it."""
    bounded = file.isatty() or "COLUMNS" in os.environ
    return Console(file=file, width=None if bounded else 10_000, highlight=False, soft_wrap=not bounded)


def report(shown: Report, width: int) -> RenderableType:
    parts = [_section(section, width) for section in shown.sections]
    if not shown.keeper:
        parts.append(
            Text("No keeper is running: nobody requeues lost jobs, or sends mail. Start one: manage.py keeper", STUCK)
        )
    return Group(*parts)


def details(entry: Entry, events: Iterable[Any], last_words: str | None) -> RenderableType:
    return Group(_facts(entry), Text(), Text("Last events", "bold"), *map(_event, events), *_last_words(last_words))


# ---------------------------------------------------------------------------------------------- the list


def _section(section: Section, width: int) -> RenderableType:
    lines: list[RenderableType] = [_heading(section)]
    if section.entries:
        rows = [_row(entry) for entry in section.entries]
        widths = _widths([HEADINGS, *rows], width)
        lines.append(Text("  " + _line(HEADINGS, widths), "dim"))
        for entry, row in zip(section.entries, rows, strict=True):
            lines += _job(entry, _line(row, widths))
    if section.omitted:
        lines.append(Text(f"  and {section.omitted:,} more: --limit 0 shows all", "dim"))
    return Group(*lines, Text())


def _heading(section: Section) -> Text:
    counts, workers = section.counts, section.workers
    heading = Text.assemble((f"{section.title}: ", "bold"))
    heading.append(f"{counts.queued:,} queued, {counts.running:,} running, ")
    heading.append(f"{counts.stuck:,} stuck", STUCK if counts.stuck else "")
    if workers.count is None:
        return heading.append("; Redis is away", STUCK)
    if workers.count == 0:
        heading.append("; no worker is heard", STUCK)
    else:
        heading.append(f"; {section.busy} of {workers.count} worker{'s' * (workers.count != 1)} busy")
    return heading.append(f"; {workers.rings_unheard} ring{'s' * (workers.rings_unheard != 1)} unheard")


def _row(entry: Entry) -> tuple[str, ...]:
    job, left = entry.job, entry.lease_left_s
    return (
        short(job),
        one_line(job.organization.name, 150),
        one_line(str(job), 200),
        job.status,
        age(job.now - job.since),
        entry.attempt,
        "-" if left is None else "out" if left < 0 else f"{left:.0f} s",
    )


def _job(entry: Entry, line: str) -> list[RenderableType]:
    """Its line, and below it who holds it and why it is where it is."""
    style = STUCK if entry.job.is_stuck else STYLES.get(entry.job.status, "")
    told = ": ".join(filter(None, [", ".join(entry.holders), one_line(entry.why, 300)]))
    lines: list[RenderableType] = [Text(("! " if entry.job.is_stuck else "  ") + line, style)]
    if told:
        lines.append(Padding(Text(told), (0, 0, 0, INDENT), expand=False))
    return lines


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """As wide as the widest cell; where that is too wide in all, names are cut."""
    widths = [max(cell_len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for _ in range(sum(widths) + GAP * (len(widths) - 1) + 2 - width):
        widest = max(SHRUNK, key=lambda column: widths[column])
        widths[widest] = max(LEAST, widths[widest] - 1)
    return widths


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return (" " * GAP).join(_fit(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fit(cell: str, width: int) -> str:
    return set_cell_size(cell, width) if cell_len(cell) <= width else f"{set_cell_size(cell, width - 1)}…"


# ---------------------------------------------------------------------------------------------- one job


def _facts(entry: Entry) -> RenderableType:
    job = entry.job
    facts = {
        "id": str(job.pk),
        "queue": job.queue,
        "name": one_line(str(job), 200),
        "organization": f"{one_line(job.organization.name, 150)} ({job.organization_id})",
        "created": _ago(job, job.created_at) + (f", by {job.created_by.email}" if job.created_by else ""),
        "status": f"{job.status} for {spelled(job.now - job.since)}" + (", STUCK" if job.is_stuck else ""),
        "why": one_line(entry.why, 300),
        "attempt": f"{job.attempt}, of which the last {job.unproductive_attempts} left nothing so far",
        "worker": job.lease_owner,
        "child": "process {pid} on {host}".format(**job.process) if job.process else "",
        "lease left": "" if entry.lease_left_s is None else f"{entry.lease_left_s:.0f} s (fence {job.fence})",
        "due": _ago(job, job.due_at) if job.status == JobStatus.QUEUED else "",
        "first begun": _ago(job, job.started_at),
        "cancel asked": _ago(job, job.cancel_requested_at),
        "ended": _ago(job, job.finished_at),
        "error": one_line(f"{job.error_code}: {job.error_message}", 1000) if job.error_code else "",
    }
    return Group(*(Text.assemble((f"{name:<14}", "dim"), value) for name, value in facts.items() if value))


def _ago(job: Any, moment: Any) -> str:
    if moment is None:
        return ""
    passed = job.now - moment
    told = f"{spelled(passed)} ago" if passed >= timedelta(0) else f"in {spelled(-passed)}"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC, {told}"


def _event(event: Any) -> Text:
    data = ", ".join(f"{name} {_shown(value)}" for name, value in event.data.items() if value is not None)
    return Text(f"{event.sequence:>7}  {event.at:%m-%d %H:%M:%S}  {event.kind:<16} {one_line(data, 500)}")


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _last_words(words: str | None) -> list[RenderableType]:
    if words is None:
        return []
    return [
        Text(),
        Text("Last words of its child", "bold"),
        *(Text(one_line(line, 500)) for line in words.splitlines()),
    ]
