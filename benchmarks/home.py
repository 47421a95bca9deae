"""A home of its own for a contender: an empty database, an empty Redis, and no file of anybody else's."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.harness import RESULTS
from platform_site import engines


@contextmanager
def fresh_home() -> Iterator[dict[str, str]]:
    """What the environment says of the home: servers that somebody has configured are not filled with our rows."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    home = tempfile.mkdtemp(prefix="home-", dir=RESULTS)
    try:
        yield {"PLATFORM_HOME": home, **engines.NOT_STARTED}
    finally:
        shutil.rmtree(home)
