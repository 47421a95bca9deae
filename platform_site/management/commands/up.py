"""Run the platform in the foreground."""

from __future__ import annotations

import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand

from platform_site.address import Address, CannotStart
from platform_site.roles import Platform
from platform_site.supervisor import NotReady


class Command(BaseCommand):
    help = "Runs the platform in the foreground: web, keeper, workers, inference. HOST and PORT say where."
    requires_system_checks: list[str] = []  # each process makes its own

    def handle(self, *_: Any, **__: Any) -> None:
        try:
            platform = Platform(Address.from_environment(), terminal=sys.stdout)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda *_: platform.ask_to_stop())
            run(platform)
        except CannotStart as error:
            print(error, file=sys.stderr)
            sys.exit(1)


def run(platform: Platform) -> None:
    """Run until a signal asks for the end."""
    try:
        platform.start()
        assert platform.log is not None
        while not platform.is_stopping:
            try:
                platform.wait_ready(60)
                break
            except NotReady as error:
                platform.log.announce(f"{error} The log says why; still trying. Ctrl-C stops everything.")
        if not platform.is_stopping:
            url = platform.web.url
            platform.log.announce(f"Ready: {url}  (GraphiQL at /graphql, admin at /admin/)  Ctrl-C stops everything")
            platform.run_forever()
        platform.log.announce("Stopping; a second Ctrl-C kills at once.")
    finally:
        platform.stop()
