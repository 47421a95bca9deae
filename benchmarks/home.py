"""A home of its own for a contender: an empty database, an empty Redis, and no file of anybody else's."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import RESULTS
from platform_site import engines

REMOVE_S = 10.0


@contextmanager
def fresh_home() -> Iterator[dict[str, str]]:
    """What the environment says of the home: servers that somebody has configured are not filled with our rows."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="home-", dir=RESULTS))
    try:
        yield {"PLATFORM_HOME": str(home), **engines.NOT_STARTED}
    finally:
        _remove(home)


def _remove(home: Path) -> None:
    """Of a contender that was killed, the servers stop by themselves, and remove files meanwhile."""
    deadline = time.monotonic() + REMOVE_S
    while home.exists() and time.monotonic() < deadline:
        shutil.rmtree(home, ignore_errors=True)
        time.sleep(0.1)
