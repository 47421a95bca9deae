"""A base model is fine-tuned on a dataset's version, for an operator."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandParser
from django.db import ProgrammingError

from accounts.roles import Role
from common.errors import DomainError, Invalid
from common.graphql import camel_case
from common.lookup import short
from common.outages import AWAY, first_line
from common.shell import exit_unless_well, fail, watched
from common.tenancy import operator, tenant
from common.text import one_line
from datasets.interrupting import sigterm_as_ctrl_c
from datasets.lookup import finished_version_named
from datasets.sending import AtTheShell
from training import actions
from training.models import TrainingRun
from training.run_screen import RunScreen
from training.trainer.config import ConfigError, TrainingConfig

CHOICES = {camel_case(field.name): field.name for field in fields(TrainingConfig)}


class Command(BaseCommand):
    help = "Fine-tunes a base model on a version of a dataset, of whichever organization."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", help="of a version or, for its newest finished one, of a dataset; or its beginning")
        parser.add_argument("--name", help="what the run and its adapter are called; without it, the dataset's name")
        parser.add_argument(
            "--base-model", metavar="NAME", help="that it starts from; without it, the platform's default"
        )
        parser.add_argument(
            "--set",
            metavar="NAME=VALUE",
            dest="choices",
            action="append",
            default=[],
            help="of the recipe, as the API names it: --set maxSteps=100 --set learningRate=1e-4",
        )
        parser.add_argument("--wait", action="store_true", help="until it has ended, with its progress")

    def handle(self, *_: Any, **options: Any) -> None:
        with sigterm_as_ctrl_c():
            self._train(options)

    def _train(self, options: dict[str, Any]) -> None:
        self._screen = RunScreen(sys.stdout)
        try:
            run = _started(options)
        except DomainError as refusal:
            fail(refusal.message)
        except (*AWAY, ProgrammingError) as error:
            fail(f"The database does not answer, or was not migrated: {first_line(error)}")
        except KeyboardInterrupt:
            print("Interrupted; nothing was started.", file=sys.stderr)
            sys.exit(130)
        self._screen.line(f"Queued as {short(run)}: {one_line(run.name, 200)}")
        if options["wait"]:
            run = watched(self._screen, TrainingRun.objects.all(), run, self._screen.steps(), "run")
        if run.has_ended:
            self._screen.ended(run)
        self._screen.where(run)
        exit_unless_well(run)


def _started(options: dict[str, Any]) -> TrainingRun:
    """Raises DomainError, which says what to type instead."""
    config = _config(options["choices"])
    with operator():
        version = finished_version_named(options["id"])
        organization = version.dataset.organization
    closing = frozenset([organization.pk]) if organization.closes_at else frozenset[UUID]()
    actor = AtTheShell(user_id=None, roles={organization.pk: Role.OWNER}, closing=closing)
    with tenant(actor):
        run = actions.start_run(
            actor=actor, version=version, base_model=options["base_model"], name=options["name"], config=config
        )
        run.operated("create", actor.name)
    return run


def _config(choices: Sequence[str]) -> TrainingConfig:
    """Of NAME=VALUE, each of which may stand there once more: the last one counts. Raises Invalid."""
    values: dict[str, Any] = {}
    for choice in choices:
        name, equals, value = choice.partition("=")
        if not equals:
            raise Invalid(f"--set {one_line(choice, 60)}: write NAME=VALUE, as in --set maxSteps=100.")
        field = CHOICES.get(camel_case(name.replace("-", "_")))
        if field is None:
            near = get_close_matches(name, CHOICES, 1)
            meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(CHOICES)}."
            raise Invalid(f"--set {one_line(choice, 60)}: a recipe has no {one_line(name, 40)}; {meant}")
        values[field] = _value(field, value)
    try:
        return TrainingConfig.from_json(values)
    except ConfigError as error:
        raise Invalid(f"--set {camel_case(error.field)}: {error.message}") from None


def _value(field: str, text: str) -> Any:
    """As JSON has it, but that words need no quotes, and layers no brackets."""
    if field == "target_modules" and not text.startswith("["):
        return re.split(r"\s*,\s*", text)
    try:
        return json.loads(text)
    except ValueError:
        return text
