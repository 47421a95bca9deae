"""Find what is wrong with the audit log."""

import sys
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandParser

from accounts import audit
from common.tenancy import operator


class Command(BaseCommand):
    help = "Find entries of the audit log that were changed, are missing, or have changed places. Exit status 1 if there are."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", type=UUID, help="The id of one; without it, all.")

    def handle(self, *args: Any, organization: UUID | None, **options: Any) -> None:
        found = False
        with operator():
            chosen = [organization] if organization else audit.organizations()
            for each in chosen:
                for flaw in audit.verify(each):
                    found = True
                    print(flaw)
        if found:
            sys.exit(1)
        print(f"The audit log is as it was written ({len(chosen)} organization{'' if len(chosen) == 1 else 's'}).")
