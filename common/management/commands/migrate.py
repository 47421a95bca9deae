"""Django's migrate, as the database's owner: before the first migration platform_app does not exist."""

from typing import Any

from django.core.management.commands.migrate import Command as MigrateCommand

from common.ownership import as_owner


class Command(MigrateCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        with as_owner():
            super().handle(*args, **options)
