"""An adapter that was trained elsewhere becomes an organization's, for an operator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import ProgrammingError
from django.urls import reverse

from accounts.lookup import organization_named
from accounts.roles import Role
from common.errors import DomainError
from common.lookup import api_id
from common.outages import AWAY, first_line
from common.shell import Screen, fail
from common.tenancy import operator
from common.text import one_line
from datasets.interrupting import sigterm_as_ctrl_c
from datasets.sending import AtTheShell
from training.models import Adapter
from training.registering import register


class Command(BaseCommand):
    help = (
        "Registers an adapter that was trained elsewhere, in peft's format: a folder with adapter_config.json and "
        "adapter_model.safetensors. It is checked against its base model, and becomes a candidate."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="that peft's save_pretrained has written")
        parser.add_argument("--organization", required=True, metavar="SLUG-OR-ID", help="whose it will be")
        parser.add_argument("--name", required=True, help="what it is called; its version counts those of this name")
        parser.add_argument(
            "--base-model",
            metavar="NAME",
            help="of the platform, that it was trained on; needed where its configuration names another place for it",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        screen = Screen(sys.stdout)
        try:
            with sigterm_as_ctrl_c():
                adapter = _registered(screen, options)
        except DomainError as refusal:
            fail(f"{refusal.message}\nNothing was registered ({refusal.code}).")
        except (*AWAY, ProgrammingError) as error:
            fail(f"The database does not answer, or was not migrated: {first_line(error)}")
        except OSError as error:
            fail(f"The files could not be read or stored, and nothing was registered: {error.strerror or error}")
        except KeyboardInterrupt:
            print("Interrupted; nothing was registered.", file=sys.stderr)
            sys.exit(130)
        screen.line(f"REGISTERED: adapter {one_line(str(adapter), 200)}, digest {adapter.digest}", "green")
        page = reverse("admin:training_adapter_change", args=[adapter.pk])
        screen.line(f"Its page:  {settings.PUBLIC_URL}{page}")
        screen.line(f"In the API: {api_id(adapter)}")


def _registered(screen: Screen, options: dict[str, Any]) -> Adapter:
    with operator():
        organization = organization_named(options["organization"])
    closing = frozenset([organization.pk]) if organization.closes_at else frozenset[UUID]()
    actor = AtTheShell(user_id=None, roles={organization.pk: Role.OWNER}, closing=closing)
    return register(
        actor=actor,
        organization_id=organization.pk,
        folder=options["folder"].expanduser(),
        name=options["name"],
        base_model=options["base_model"],
        say=lambda text: screen.line(f"  {one_line(text, 300)}", "dim"),
    )
