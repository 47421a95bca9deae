"""Django's flush, as the database's owner: platform_app may not truncate."""

from typing import Any

from django.core.management.commands.flush import Command as FlushCommand

from common.ownership import as_owner


class Command(FlushCommand):
    def handle(self, **options: Any) -> None:
        with as_owner():
            super().handle(**options)
