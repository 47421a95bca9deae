"""A local file becomes a version of a dataset, for an operator."""

from __future__ import annotations

import json
import os
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandParser
from django.db import ProgrammingError
from django.db.models import Q

from accounts.lookup import organization_named
from accounts.models import Organization
from accounts.roles import Role
from common.errors import DomainError, Invalid
from common.jobs import JobStatus
from common.lookup import short
from common.outages import AWAY, first_line
from common.shell import exit_unless_well, fail, watched
from common.tenancy import operator, tenant
from common.text import is_storable, one_line
from datasets import actions, rows
from datasets.interrupting import sigterm_as_ctrl_c
from datasets.lookup import dataset_named
from datasets.making_screen import MakingScreen
from datasets.models import Dataset, DatasetVersion
from datasets.naming import with_names
from datasets.pipeline.fingerprint import fingerprint
from datasets.pipeline.recipe import Recipe, RecipeError
from datasets.sending import AtTheShell, send_file, sha256_of, upload_of

REASONS_WITH_EXAMPLES = 5


class Command(BaseCommand):
    help = "Makes a dataset, or a further version of one, from a file on this host, for whichever organization."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="JSONL, JSON, CSV, Parquet, Python, or a zip of it")
        parser.add_argument("--organization", metavar="SLUG-OR-ID", help="whose it will be; of a --dataset, known")
        parser.add_argument("--name", help="what the new dataset is called")
        parser.add_argument("--dataset", metavar="ID", help="make a further version of this one instead")
        parser.add_argument(
            "--recipe", metavar="FILE.json", type=Path, help="RecipeInput's fields; without it, defaults"
        )
        parser.add_argument("--wait", action="store_true", help="until it is made, with the progress of each step")

    def handle(self, *_: Any, **options: Any) -> None:
        with sigterm_as_ctrl_c():
            self._process(options)

    def _process(self, options: dict[str, Any]) -> None:
        try:
            version = self._make(options)
        except DomainError as refusal:
            fail(refusal.message)
        except (*AWAY, ProgrammingError) as error:
            fail(f"The database does not answer, or was not migrated: {first_line(error)}")
        except OSError as error:
            fail(f"The file could not be stored: {error.strerror or error}")
        except KeyboardInterrupt:
            print("Interrupted; nothing was made.", file=sys.stderr)
            sys.exit(130)
        if options["wait"] and not version.has_ended:
            rows_of = DatasetVersion.objects.select_related("dataset")
            version = watched(self._screen, rows_of, version, self._screen.steps(), "version")
        self._tell(version)
        exit_unless_well(version)

    # ------------------------------------------------------------------------------------------ making it

    def _make(self, options: dict[str, Any]) -> DatasetVersion:
        self._screen = MakingScreen(sys.stdout)
        path = _usable(options["file"])
        recipe = _recipe(options["recipe"])
        with operator():
            dataset = dataset_named(options["dataset"]) if options["dataset"] else None
            organization = _organization(options["organization"], dataset)
        if (dataset is None) == (options["name"] is None):
            raise Invalid("Say --name for a new dataset, or --dataset for a further version of one.")
        closing = frozenset([organization.pk]) if organization.closes_at else frozenset[UUID]()
        actor = AtTheShell(user_id=None, roles={organization.pk: Role.OWNER}, closing=closing)
        with self._screen.reading(f"Reading {path.name}", path.stat().st_size) as advance:
            sha256 = sha256_of(path, advance)
        with tenant(actor):
            same = _made_before(organization.pk, fingerprint(sha256, recipe))
            upload = upload_of(organization.pk, sha256)
        if same is not None:
            self._screen.line("There is a version of the same bytes and recipe: this is it.")
            return same
        if upload is None:
            upload = send_file(actor, organization.pk, path, sha256)
        with tenant(actor):
            if dataset is None:
                version = actions.create_dataset(
                    actor=actor, organization_id=organization.pk, name=options["name"], upload=upload, recipe=recipe
                )
            else:
                version = actions.process_dataset(actor=actor, dataset=dataset, upload=upload, recipe=recipe)
            version.operated("create", actor.name)
        self._screen.line(f"Queued as {short(version)}: {one_line(str(version), 200)}")
        return version

    # ------------------------------------------------------------------------------------------ what came of it

    def _tell(self, version: DatasetVersion) -> None:
        if version.status == JobStatus.SUCCEEDED:
            self._screen.result(version, _examples(version))
        elif version.has_ended:
            self._screen.ended_badly(version)
        self._screen.where(version)
        if version.status == JobStatus.SUCCEEDED:
            self._screen.line(f"Its rows:  manage.py export_dataset {short(version)}")


def _examples(version: DatasetVersion) -> dict[str, str]:
    """For the most frequent reasons, the first row that was left out for each."""
    counts = sorted((r for step in version.steps for r in step["reasons"]), key=lambda r: -r["count"])
    found = {}
    try:
        for reason in [each["key"] for each in counts[:REASONS_WITH_EXAMPLES]]:
            for _, row in rows.rejections(version, first=1, after=None, reason=reason).rows:
                found[reason] = f"line {row['line']}: {row['excerpt']}"
    except FileNotFoundError:  # its dataset was deleted a moment ago
        pass
    return found


def _made_before(organization_id: UUID, hashed: str) -> DatasetVersion | None:
    """Made, or on its way to be: what the actions would give back for these bytes."""
    same = DatasetVersion.objects.filter(organization_id=organization_id, fingerprint=hashed, dataset__deleted_at=None)
    on_its_way = Q(status__in=[JobStatus.QUEUED, JobStatus.RUNNING], cancel_requested_at=None)
    found: DatasetVersion | None = (
        same.filter(on_its_way | Q(status=JobStatus.SUCCEEDED)).select_related("dataset").first()
    )
    return found


# ------------------------------------------------------------------------------------------ what was typed


def _usable(path: Path) -> Path:
    path = path.expanduser()
    if not path.exists():
        near = get_close_matches(path.name, os.listdir(path.parent), 1) if path.parent.is_dir() else []
        raise Invalid(f"There is no file {path}" + (f"; did you mean {path.parent / near[0]}?" if near else "."))
    if not path.is_file():
        raise Invalid(f"{path} is not a file: zip a folder, and name the zip.")
    if not os.access(path, os.R_OK):
        raise Invalid(f"{path} cannot be read: its permissions forbid it.")
    return path


def _organization(text: str | None, dataset: Dataset | None) -> Organization:
    """Raises Invalid, which names what is spelled alike."""
    if text is None:
        if dataset is None:
            raise Invalid("Say whose it will be: --organization, and its slug or id.")
        return dataset.organization
    found = organization_named(text)
    if dataset is not None and dataset.organization_id != found.pk:
        raise Invalid(f"{dataset} belongs to {dataset.organization.slug}, not to {found.slug}.")
    return found


def _recipe(path: Path | None) -> Recipe:
    """Of a file as the API takes it, or as a manifest has it. Raises Invalid with the place of what is wrong."""
    if path is None:
        return with_names(Recipe(), None)
    try:
        value = json.loads(_usable(path).read_text())
    except UnicodeDecodeError:
        raise Invalid(f"{path} is not UTF-8.") from None
    except json.JSONDecodeError as error:
        raise Invalid(f"{path} is no JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from None
    try:
        value = _snake_case(value)
        wanted = _names_wanted(value)
        recipe = with_names(Recipe.from_json(value), wanted)
    except (RecipeError, TypeError) as error:
        raise Invalid(f"{path}: {error}.") from None
    if not is_storable(json.dumps(recipe.to_json(), ensure_ascii=False).replace("\\u0000", "\0")):
        raise Invalid(f"{path}: no name, pattern, or value can have NUL or half a surrogate pair in it.")
    return recipe


def _names_wanted(recipe: Any) -> bool | None:
    """What the API's field says, which is taken out; a manifest has a model, which stays, or null where it did without.

    Raises RecipeError for what is neither.
    """
    if not isinstance(recipe, dict) or "names" not in recipe or isinstance(recipe["names"], dict):
        return None
    wanted = recipe.pop("names")
    if wanted is not None and not isinstance(wanted, bool):
        raise RecipeError("names", "must be true or false, or a manifest's model or null")
    return bool(wanted)


def _snake_case(value: Any) -> Any:
    if isinstance(value, list):
        return [_snake_case(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", key): _snake_case(inner) for key, inner in value.items()
    }
