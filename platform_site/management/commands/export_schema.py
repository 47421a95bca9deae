"""Print the API's schema, as schema.graphql has it."""

from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """In place of strawberry_django's: installed as an app, that costs each process of the platform a second."""

    help = "Print the GraphQL schema in its definition language."

    def handle(self, *args: Any, **options: Any) -> None:
        from platform_site.schema import schema

        self.stdout.write(schema.as_str())
