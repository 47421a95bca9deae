"""What keepers do from time to time, declared beside what it concerns, in <app>/schedules.py."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection

from common.outages import AWAY, Patience

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
LEAVE_S = 0.5

Action = Callable[[], None]


@dataclass(frozen=True)
class Schedule:
    action: Action
    period_s: float
    on_each_host: bool
    """Every keeper carries it out, since it concerns the host's own files and processes; otherwise the leader alone."""
    slow: bool
    """It may take minutes, as storage may, and holds up no other but slow ones."""


_declared: dict[str, Schedule] = {}


def every(period: timedelta, *, on_each_host: bool = False, slow: bool = False) -> Callable[[Action], Action]:
    """Declare that the keeper is to call this once in `period`, and first when it starts: nothing remembers the last
    time, so it must do no harm to do it again, or twice at once. It enters a scope of its own."""

    def declare(action: Action) -> Action:
        name = f"{action.__module__}.{action.__name__}"
        _declared[name] = Schedule(action, period.total_seconds(), on_each_host, slow)
        return action

    return declare


class Timetable:
    """When each of the declared actions is due: of the slow ones, or of the others."""

    def __init__(self, *, slow: bool = False) -> None:
        self._next_s = {name: 0.0 for name, schedule in _declared.items() if schedule.slow is slow}

    def carry_out_due(self, *, leads: bool) -> int:
        """Call what is due, and return how many were: all of them where this keeper leads, otherwise those of each host.

        One that fails is logged and has its turn again a period later. Raises one of AWAY.
        """
        due = [name for name, next_s in self._next_s.items() if time.monotonic() >= next_s]
        due = [name for name in due if leads or _declared[name].on_each_host]
        for name in due:
            try:
                _declared[name].action()
            except AWAY:
                raise
            except Exception:
                logger.exception("The schedule %s failed.", name)
            self._next_s[name] = time.monotonic() + _declared[name].period_s
        return len(due)


@contextmanager
def carrying_out_slow(leads: threading.Event) -> Iterator[None]:
    """Carry out slow schedules from a thread of its own, over a database connection of its own, while the block lasts.

    Leaving does not wait for one that is under way: whoever comes next does it again.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_carry_out_slow, args=(leads, stop), name="schedules", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LEAVE_S)


def _carry_out_slow(leads: threading.Event, stop: threading.Event) -> None:
    timetable, patience = Timetable(slow=True), Patience()
    while not stop.wait(LOOK_EVERY_S):
        try:
            if timetable.carry_out_due(leads=leads.is_set()):
                patience.over()
        except AWAY as error:
            patience.note(error)
    connection.close()
