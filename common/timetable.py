"""What the keeper does from time to time, declared beside what it concerns, in <app>/schedules.py."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from common.outages import AWAY

logger = logging.getLogger(__name__)

_declared: dict[str, tuple[timedelta, Callable[[], object]]] = {}


def every(period: timedelta) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Declare that the keeper is to call this once in `period`, and first when it starts: nothing remembers the last
    time, so it must do no harm to do it again. It enters a scope of its own."""

    def declare(action: Callable[[], None]) -> Callable[[], None]:
        _declared[f"{action.__module__}.{action.__name__}"] = (period, action)
        return action

    return declare


class Timetable:
    """When each of the declared actions is due."""

    def __init__(self) -> None:
        self._next_s = dict.fromkeys(_declared, 0.0)

    def carry_out_due(self) -> None:
        """Call what is due; one that fails is logged and has its turn again a period later. Raises one of AWAY."""
        for name, (period, action) in _declared.items():
            if time.monotonic() < self._next_s[name]:
                continue
            try:
                action()
            except AWAY:
                raise
            except Exception:
                logger.exception("The schedule %s failed.", name)
            self._next_s[name] = time.monotonic() + period.total_seconds()
