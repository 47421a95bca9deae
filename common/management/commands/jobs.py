"""Jobs, for the operator at night: what is queued, running, and stuck, who holds it, since when, and why."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import ProgrammingError, close_old_connections
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from common import job_screen, operations
from common.errors import Invalid
from common.job_commands import change_each, organizations_called, unreachable, whole_number
from common.job_report import Report, entry_of, gather
from common.jobs import Job, job_models
from common.leftovers import attempt_folder
from common.lookup import find
from common.outages import AWAY
from common.tenancy import operator

REDRAW_EVERY_S = 2.0
EVENTS = 20
LAST_WORDS = 20  # lines
LIMIT = 50


class Command(BaseCommand):
    help = "Shows unfinished jobs of all organizations: what is queued, running, and stuck, who holds it, and why."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        queues = sorted({model.queue for model in job_models()})
        parser.add_argument("--queue", choices=queues, help="Only this queue's.")
        parser.add_argument("--organization", metavar="NAME", help="Only those of this organization: its name or slug.")
        parser.add_argument("--all", action="store_true", help="The 50 of each queue that ended last, too.")
        parser.add_argument(
            "--limit", type=whole_number, default=LIMIT, help=f"Jobs a queue, 0 for all; {LIMIT} by default."
        )
        parser.add_argument("--json", action="store_true", help="For scripts.")
        parser.add_argument("--watch", action="store_true", help="Again every two seconds, until Ctrl-C.")
        verbs = parser.add_subparsers(dest="verb", metavar="{show,cancel,requeue}")
        show = verbs.add_parser("show", help="all that is known of a job, its last events, and its child's last words")
        show.add_argument("id", help="its id, or the beginning of it")
        for verb, meaning in [
            ("cancel", "stop jobs: queued ones at once, running ones after they have saved"),
            ("requeue", "take running jobs from workers that are gone or hang, at no cost of an attempt"),
        ]:
            changing = verbs.add_parser(verb, help=meaning)
            changing.add_argument("ids", nargs="+", metavar="ID", help="ids, or the beginnings of them")

    def handle(self, *_: Any, verb: str | None, **options: Any) -> None:
        try:
            if verb == "show":
                self._show(options["id"])
            elif verb is not None:
                change_each(options["ids"], find, getattr(operations, verb))
            elif options["watch"]:
                self._watch(options)
            else:
                self._list(options)
        except Invalid as refusal:
            self._fail(refusal.message)
        except (*AWAY, ProgrammingError) as error:
            self._fail(unreachable(error))
        except BrokenPipeError:  # of `| head`; Python would complain about it once more at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def _list(self, options: dict[str, Any]) -> None:
        found = report_of(options)
        if options["json"]:
            print(json.dumps(found.to_json(), indent=1))
        else:
            screen = job_screen.console(sys.stdout)
            screen.print(job_screen.report(found, screen.width))
        sys.stdout.flush()

    def _watch(self, options: dict[str, Any]) -> None:
        """Also while the database is away, which it then says."""
        screen = job_screen.console(sys.stdout)

        def look() -> RenderableType:
            try:
                return job_screen.report(report_of(options), screen.width)
            except (*AWAY, ProgrammingError) as error:
                close_old_connections()
                return Text(unreachable(error))

        try:
            with Live(look(), console=screen, screen=screen.is_terminal, auto_refresh=False) as live:
                while True:
                    if screen.is_terminal:
                        live.update(look(), refresh=True)
                    else:
                        screen.print(look())
                    time.sleep(REDRAW_EVERY_S)
        except KeyboardInterrupt:
            pass

    def _show(self, text: str) -> None:
        with operator():
            entry = entry_of(find(text))
            events = list(entry.job.event_log.order_by("-sequence")[:EVENTS])[::-1]
            screen = job_screen.console(sys.stdout)
            screen.print(job_screen.details(entry, events, last_words(entry.job)))

    def _fail(self, message: str) -> None:
        print(message, file=sys.stderr)
        sys.exit(1)


def report_of(options: dict[str, Any]) -> Report:
    models = [model for model in job_models() if options["queue"] in (None, model.queue)]
    with operator():
        organizations = options["organization"] and organizations_called(options["organization"])
        return gather(models, organizations=organizations, ended=options["all"], limit=options["limit"])


def last_words(job: Job) -> str | None:
    """The end of what the newest attempt's child printed, where that lies on this host."""
    try:
        lines = (attempt_folder(job.pk, job.fence) / "child.log").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return "\n".join(lines[-LAST_WORDS:])
