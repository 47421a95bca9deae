"""How a process that answers no requests shows that it moves: its supervisor kills one that has stopped (BEAT_FILE)."""

import os
import time
from contextlib import suppress
from pathlib import Path


def beat() -> None:
    """Note the time, on the clock that all processes of a machine share and nobody sets."""
    if path := os.environ.get("BEAT_FILE"):
        with suppress(OSError):  # a full disk: an empty file says nothing against it
            Path(path).write_text(str(time.monotonic()))
