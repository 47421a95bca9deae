"""Training runs, for an operator: what they have come to, and how long they still take."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import ProgrammingError
from rich.table import Table
from rich.text import Text

from common import operations
from common.clock import ServerClock
from common.errors import Invalid
from common.job_commands import change_each, organizations_called, unreachable, whole_number
from common.job_screen import STYLES
from common.jobs import JobStatus
from common.lookup import find, short
from common.outages import AWAY
from common.shell import exit_unless_well, fail, watched
from common.tenancy import operator
from common.text import age, one_line, spelled
from datasets.interrupting import sigterm_as_ctrl_c
from training.models import TrainingRun
from training.run_screen import RunScreen

LIMIT = 50
HEADINGS = ("ID", "ORGANIZATION", "NAME", "STATUS", "FOR", "STEP", "LOSS", "VALIDATION", "TOKENS/S", "LEFT")


class Command(BaseCommand):
    help = "Lists training runs of all organizations, newest first, with their losses and how long they still take."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", metavar="NAME", help="Only those of this organization: its name or slug.")
        parser.add_argument(
            "--status", choices=JobStatus.values, action="append", type=str.upper, help="Only those; may be repeated."
        )
        parser.add_argument("--limit", type=whole_number, default=LIMIT, help=f"Runs, 0 for all; {LIMIT} by default.")
        parser.add_argument("--json", action="store_true", help="For scripts.")
        parser.add_argument("--watch", metavar="ID", help="Follow this one until it has ended; Ctrl-C leaves it alone.")
        verbs = parser.add_subparsers(dest="verb", metavar="{cancel}")
        cancel = verbs.add_parser("cancel", help="stop runs: queued ones at once, running ones after they have saved")
        cancel.add_argument("ids", nargs="+", metavar="ID", help="ids, or the beginnings of them")

    def handle(self, *_: Any, verb: str | None, **options: Any) -> None:
        self._screen = RunScreen(sys.stdout)
        try:
            if verb is not None:
                change_each(options["ids"], _run, operations.cancel)
            elif options["watch"]:
                self._watch(options["watch"])
            else:
                self._list(options)
        except Invalid as refusal:
            fail(refusal.message)
        except (*AWAY, ProgrammingError) as error:
            fail(unreachable(error))
        except BrokenPipeError:  # of `| head`; Python would complain about it once more at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _list(self, options: dict[str, Any]) -> None:
        with operator():
            runs = TrainingRun.objects.select_related("organization").annotate(now=ServerClock())
            if options["organization"]:
                runs = runs.filter(organization_id__in=organizations_called(options["organization"]))
            if options["status"]:
                runs = runs.filter(status__in=options["status"])
            count, limit = runs.count(), options["limit"] or None
            found = list(runs[:limit])
        if options["json"]:
            print(json.dumps([_to_json(run) for run in found], indent=1))
        else:
            self._screen.console.print(_table(found) if found else Text("No runs."))
            if count > len(found):
                self._screen.line(f"and {count - len(found):,} more: --limit 0 shows all", "dim")
        sys.stdout.flush()

    def _watch(self, text: str) -> None:
        with operator():
            run = _run(text)
        screen = self._screen
        screen.line(f"{short(run)} {one_line(run.name, 200)}: {run.status}")
        with sigterm_as_ctrl_c():
            run = watched(screen, TrainingRun.objects.all(), run, screen.steps(), "run")
        screen.ended(run)
        screen.where(run)
        exit_unless_well(run)


def _run(text: str) -> TrainingRun:
    """Raises Invalid, also for a job of another kind."""
    job = find(text)
    if not isinstance(job, TrainingRun):
        raise Invalid(f"{text} is no training run: it is {one_line(str(job), 100)}, in the queue {job.queue}.")
    return job


def _table(runs: list[TrainingRun]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in HEADINGS:
        table.add_column(heading, no_wrap=True, overflow="ellipsis", min_width=8 if heading in HEADINGS[:3] else None)
    for run in runs:
        table.add_row(*(Text(cell) for cell in _cells(run)), style=STYLES.get(JobStatus(run.status), ""))
    return table


def _cells(run: TrainingRun) -> tuple[str, ...]:
    return (
        short(run),
        one_line(run.organization.name, 150),
        one_line(run.name, 150),
        run.status if not run.error_code else f"{run.status}: {run.error_code}",
        _lasting(run),
        f"{run.step:,}/{run.total_steps:,}" if run.total_steps else "-",
        _figure(run.loss, ".4f"),
        _figure(run.eval_loss, ".4f"),
        _figure(run.tokens_per_second, ",.0f"),
        spelled(timedelta(seconds=run.eta_seconds)) if _is_timed(run) and run.eta_seconds is not None else "-",
    )


def _lasting(run: Any) -> str:
    """How long it waits, has been at work, or took."""
    begun = run.started_at or run.created_at
    return age((run.finished_at or run.now) - begun)


def _is_timed(run: TrainingRun) -> bool:
    return run.status == JobStatus.RUNNING


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _to_json(run: TrainingRun) -> dict[str, Any]:
    times = {name: getattr(run, name) for name in ("created_at", "started_at", "finished_at")}
    return {
        "id": str(run.pk),
        "organization": {"id": str(run.organization_id), "name": run.organization.name},
        "name": run.name,
        "base_model": run.base_model_name,
        "status": run.status,
        "error_code": run.error_code,
        **{name: time and time.isoformat() for name, time in times.items()},
        **{name: getattr(run, name) for name in ("step", "total_steps", "loss", "eval_loss", "tokens_per_second")},
        "eta_seconds": run.eta_seconds if _is_timed(run) else None,
        "estimate": run.estimate,
    }
