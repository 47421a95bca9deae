"""Django's migrate, as the database's owner: before the first migration platform_app does not exist."""

import sys
from typing import Any

from django.core.management.commands.migrate import Command as MigrateCommand

from common.outages import AWAY, EXIT_DATABASE_AWAY, is_away, told
from common.ownership import as_owner


class Command(MigrateCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with as_owner():
                super().handle(*args, **options)
        except AWAY as error:
            if not is_away(error):
                raise
            print(told(error), file=sys.stderr)
            sys.exit(EXIT_DATABASE_AWAY)
