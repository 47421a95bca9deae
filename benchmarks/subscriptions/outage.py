"""Redis is killed, and comes back empty."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from platform_site import engines


@contextmanager
def redis_away(home: Path) -> Iterator[None]:
    """While the body runs there is no Redis: whoever would start it again at once is stopped."""
    state = engines.status(home)
    assert state is not None and state.redis is not None
    os.kill(state.holder, signal.SIGSTOP)
    try:
        os.kill(state.redis, signal.SIGKILL)
        yield
    finally:
        os.kill(state.holder, signal.SIGCONT)
