"""Look at the embedded servers."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from platform_site import engines
from platform_site.engines.postgres import binaries


class Command(BaseCommand):
    help = "Shows the embedded PostgreSQL and Redis of this home: what runs, where, and who uses it. Starts nothing."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--psql", action="store_true", help="Open psql on the database.")

    def handle(self, *_: Any, psql: bool, **__: Any) -> None:
        if psql:
            sys.exit(open_psql())
        home = engines.platform_home()
        state = engines.status(home)
        self.stdout.write(f"home        {home}")
        for variable, url in engines.NOT_STARTED.items():
            if os.environ.get(variable) != url:
                self.stdout.write(f"{variable} is set: that server is used instead of the embedded one")
        if state is None:
            self.stdout.write("Nothing runs: commands that need the servers start them, and the last one stops them.")
            return
        found = engines.urls(Path(state.sockets))
        self.stdout.write(f"holder      process {state.holder}")
        self.stdout.write(f"PostgreSQL  {f'process {state.postgres}, {found[0]}' if state.postgres else 'not in use'}")
        self.stdout.write(f"Redis       {f'process {state.redis}, {found[1]}' if state.redis else 'not in use'}")
        for pid in engines.users(home):
            self.stdout.write(f"used by     process {pid}: {command_line(pid)}")


def open_psql() -> int:
    try:
        engines.start_if_needed()
    except engines.EnginesError as error:
        print(error, file=sys.stderr)
        return 1
    return subprocess.call([str(binaries() / "psql"), os.environ["DATABASE_URL"]])


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return "gone"
