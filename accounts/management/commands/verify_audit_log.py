"""Find what is wrong with the audit log."""

import sys
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from accounts import audit
from common.outages import AWAY, told
from common.tenancy import operator

EXIT_UNKNOWN = 2  # not 1: nothing is known to be wrong


class Command(BaseCommand):
    help = "Find entries of the audit log that were changed, are missing, or have changed places. Exit status 1 if there are."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--organization", type=UUID, help="The id of one; without it, all.")

    def handle(self, *args: Any, organization: UUID | None, **options: Any) -> None:
        try:
            with operator():
                known = audit.organizations()
                if organization is not None and organization not in known:
                    raise CommandError(f"There is no log of an organization {organization}.", returncode=EXIT_UNKNOWN)
                chosen = known if organization is None else [organization]
                flaws = [flaw for each in chosen for flaw in audit.verify(each)]
        except AWAY as error:
            raise CommandError(told(error), returncode=EXIT_UNKNOWN) from error
        for flaw in flaws:
            print(flaw)
        if flaws:
            sys.exit(1)
        print(f"The audit log is as it was written ({len(chosen)} organization{'' if len(chosen) == 1 else 's'}).")
