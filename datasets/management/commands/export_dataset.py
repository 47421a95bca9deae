"""A version's rows as a file, for an operator."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import ProgrammingError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from common.errors import Invalid
from common.outages import AWAY, first_line
from common.shell import fail
from common.tenancy import operator
from common.text import one_line
from datasets.card import card
from datasets.exports import SPLITS, card_name, count_rows, export, file_name, note
from datasets.interrupting import sigterm_as_ctrl_c
from datasets.lookup import finished_version_named
from datasets.models import DatasetVersion
from datasets.pipeline.stored.export import ExportFormat
from datasets.whole_file import new_file

STDOUT = "-"
ACTOR = "command"


class Command(BaseCommand):
    help = "Writes the rows of a dataset's version, of whichever organization, to a file: JSONL, Parquet, or CSV."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="of a version or, for its newest finished one, of a dataset; or its beginning")
        parser.add_argument(
            "--format",
            type=str.lower,
            choices=[each.lower() for each in ExportFormat],
            default=ExportFormat.JSONL.lower(),
            help="jsonl by default; in csv, cells that look like formulas get an apostrophe",
        )
        parser.add_argument(
            "--split",
            type=str.lower,
            choices=[each.lower() for each in SPLITS],
            help="only this one; without it all, with a column `split`",
        )
        parser.add_argument("--card", action="store_true", help="the version's card in Markdown instead of its rows")
        parser.add_argument(
            "--output",
            metavar="FILE",
            help="a new file, or - for standard output; by default one named for the dataset",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            with sigterm_as_ctrl_c():
                self._export(options)
        except Invalid as refusal:
            fail(refusal.message)
        except (*AWAY, ProgrammingError) as error:
            fail(f"The database does not answer, or was not migrated: {first_line(error)}")
        except FileNotFoundError as error:
            fail(f"A file of this version is not in storage any more: {error.filename}")
        except BrokenPipeError:  # of `| head`; Python would complain about it once more at the exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            fail(f"The file could not be written, and nothing of it is left: {error.strerror or error}")
        except KeyboardInterrupt:
            print("Interrupted; nothing is left of the file.", file=sys.stderr)
            sys.exit(130)

    def _export(self, options: dict[str, Any]) -> None:
        with operator():
            version = finished_version_named(options["id"])
            text = card(version) if options["card"] else None
        if text is not None:
            _write_card(version, text.encode(), options["output"])
            return
        export_format = ExportFormat(options["format"].upper())
        split = options["split"] and options["split"].upper()
        output = options["output"] or file_name(version, split, export_format)
        if output == STDOUT:
            if export_format is ExportFormat.PARQUET and sys.stdout.isatty():
                raise Invalid("Parquet is not for a terminal: name a file with --output.")
            _write(version, split, export_format, sys.stdout.buffer)
            sys.stdout.flush()
            return
        path = Path(output).expanduser()
        with new_file(path) as file:
            rows = _write(version, split, export_format, file)
        print(f"{rows:,} rows, {path.stat().st_size:,} bytes: {path}", file=sys.stderr)


def _write_card(version: DatasetVersion, content: bytes, output: str | None) -> None:
    if output == STDOUT:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
        return
    path = Path(output or card_name(version)).expanduser()
    with new_file(path) as file:
        file.write(content)
    print(f"{len(content):,} bytes: {path}", file=sys.stderr)


def _write(version: DatasetVersion, split: str | None, export_format: ExportFormat, file: IO[bytes]) -> int:
    """How many rows."""
    with operator():
        note(version, split, export_format, taken_by=ACTOR)
    total = count_rows(version, split)
    with _bar(one_line(str(version), 40), total) as advance:
        for piece in export(version, split, export_format, advance):
            file.write(piece)
    file.flush()
    return total


@contextmanager
def _bar(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """On a terminal, how many rows there are already; elsewhere nothing."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda rows: progress.advance(task, rows)
