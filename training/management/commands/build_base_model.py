"""manage.py build_base_model: the platform's own small base model, from the standard library."""

from typing import Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from training.pretraining.build import StaleMeasurementError
from training.pretraining.cli import add_arguments, run


class Command(BaseCommand):
    requires_system_checks = ()
    help = "Build the small base model from the standard library of this Python, or measure it again."

    def add_arguments(self, parser: CommandParser) -> None:
        add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        # Django's wrapper adds a line end to each write, which tears rich's lines apart.
        console = Console(file=cast(Any, self.stdout)._out)
        try:
            run(options, console)
        except (StaleMeasurementError, FileNotFoundError) as error:
            raise CommandError(str(error)) from error
