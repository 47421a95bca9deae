"""Which rows came from a person, and what contains them: for the operator who has to answer that."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import audit
from accounts.models import Organization
from common.outages import AWAY, told
from common.tenancy import operator
from common.text import one_line
from datasets.tracing import Traced, organizations_with_versions, trace
from training.models import Adapter, TrainingRun

ACTOR = "command"
EXIT_NOTHING = 1
EXIT_UNKNOWN = 2
FEWEST_CHARACTERS = 5
LISTED = 100
SHOWN = 120  # characters of a name
SHOWN_AS = {"rejections": "left out", "examples": "example"}


class Command(BaseCommand):
    help = (
        "Finds rows with an e-mail address, a number, or any literal in them, masked or not, in the versions of all "
        "organizations; and the versions, runs, and adapters that contain them. Exit status 1 if there are none. Each "
        "organization where some are found has an entry in its audit log."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("address", help="An address, or another literal of at least five characters.")
        parser.add_argument("--organization", type=UUID, help="The id of one; without it, all.")
        parser.add_argument("--json", action="store_true", help="For scripts.")

    def handle(self, *_: Any, address: str, organization: UUID | None, json: bool, **options: Any) -> None:
        address = address.strip()
        if len(address) < FEWEST_CHARACTERS:
            raise CommandError(f"Give at least {FEWEST_CHARACTERS} characters to look for.", returncode=EXIT_UNKNOWN)
        try:
            known = organizations_with_versions()
            chosen = known if organization is None else [each for each in known if each == organization]
            found = [report for each in chosen if (report := _report(trace(each, address)))]
        except AWAY as error:
            raise CommandError(told(error), returncode=EXIT_UNKNOWN) from error
        except OSError as error:
            raise CommandError(f"A file could not be read: {error}", returncode=EXIT_UNKNOWN) from error
        if json:
            print(_as_json(found))
        else:
            for report in found:
                print("\n".join(_lines(report)))
        if not found:
            raise CommandError(
                f"Nothing of it is in the versions of {len(chosen):,} organizations.", returncode=EXIT_NOTHING
            )


def _report(traced: Traced) -> dict[str, Any] | None:
    """What is told of an organization, which its audit log remembers; None where nothing was found."""
    if not traced.rows:
        return None
    with operator():
        runs = list(TrainingRun.objects.filter(dataset_version__in=traced.versions).order_by("created_at"))
        adapters = list(Adapter.objects.filter(training_run__in=runs).order_by("created_at"))
        organization = Organization.objects.get(pk=traced.organization_id)
        audit.record(
            traced.organization_id,
            actor=ACTOR,
            action="rows.find",
            rows=len(traced.rows),
            versions=len(traced.versions),
        )
    return {
        "organization": {"id": str(organization.pk), "name": organization.name},
        "rows": [{**asdict(row), "version_id": str(row.version_id)} for row in traced.rows],
        "versions": [{"id": str(each.pk), "name": str(each)} for each in traced.versions],
        "runs": [{"id": str(each.pk), "name": each.name, "status": each.status} for each in runs],
        "adapters": [{"id": str(each.pk), "name": f"{each.name}:{each.version}"} for each in adapters],
    }


def _as_json(found: list[dict[str, Any]]) -> str:
    return json.dumps({"organizations": found}, indent=1)


def _lines(report: dict[str, Any]) -> list[str]:
    rows = report["rows"]
    written = [
        ("VERSION", "SPLIT", "LINE", "AS", "UPLOAD"),
        *(
            (
                row["version"],
                SHOWN_AS.get(row["split"], row["split"].lower()),
                f"{row['line']:,}",
                "masked" if row["masked"] else "it is",
                " ".join(filter(None, [row["upload"], row["source"]])),
            )
            for row in rows[:LISTED]
        ),
    ]
    table = [[one_line(str(cell), SHOWN) for cell in row] for row in written]  # names are people's
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = [f"{one_line(report['organization']['name'], SHOWN)} ({report['organization']['id']}): {len(rows):,} rows"]
    lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
    if len(rows) > LISTED:
        lines.append(f"  and {len(rows) - LISTED:,} more: see --json")
    for what in ("versions", "runs", "adapters"):
        named = [f"{one_line(each['name'], SHOWN)} ({each['id']})" for each in report[what]]
        lines.append(f"  in {len(named):,} {what}{': ' if named else ''}{', '.join(named)}")
    return lines
