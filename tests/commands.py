"""Management commands as an operator runs them, who does not wait for ever."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from django.core.management import call_command

PATIENCE_S = 240.0


def said_by(capfd: Any, name: str, *arguments: object) -> tuple[int, list[str], str]:
    """Exit status, lines of output, and errors."""
    status = 0
    give_up = threading.Timer(PATIENCE_S, os.kill, (os.getpid(), signal.SIGTERM))  # which is a Ctrl-C to the command
    give_up.start()
    try:
        call_command(name, *map(str, arguments))
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        give_up.cancel()
    said = capfd.readouterr()
    return status, [line.rstrip() for line in said.out.splitlines()], said.err
