"""The child's end of the lease's pipe: a child never outlives its supervisor.

The supervisor writes a byte at each renewed lease. At end of file it is dead; in silence it has lost the lease, or soon
will. Either way the child is first asked to stop, as by SIGTERM, so that it can save; then its thread here ends
the process, even if the main thread is stuck. Both come before the lease (60 s) runs out, and so before another attempt.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import select
import signal
import sys
import threading
import time
from dataclasses import dataclass

EXIT_ORPHANED = 75


@dataclass(frozen=True)
class Limits:
    """How long a child goes on without a sign of its supervisor."""

    stop_s: float = 45.0
    """Silence after which it is asked to stop."""
    exit_s: float = 55.0
    """Silence after which it is gone, saved or not."""
    grace_s: float = 5.0
    """The time to save once the supervisor is dead."""
    stuck_s: float = 600.0
    """The time without a turn for this module's thread after which the process is given up."""


LIMITS = Limits()


def hold_on(pipe: int, limits: Limits) -> None:
    """Start watching the reading end of the lease's pipe."""
    if sys.platform == "linux":
        # For a pipe whose other end a stranger inherited. The kernel sends it when the thread that started this
        # process ends; SIGKILL would cost the steps since the last checkpoint.
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    threading.Thread(target=_watch, args=(pipe, limits), name="lifeline", daemon=True).start()


def _watch(pipe: int, limits: Limits) -> None:
    heard, asked = time.monotonic(), False
    _give_up_when_stuck(limits)
    while True:
        next_limit = heard + (limits.exit_s if asked else limits.stop_s)
        # The pipe before the clock: a process that was stopped for minutes finds the bytes of a living supervisor.
        if select.select([pipe], [], [], max(0.0, next_limit - time.monotonic()))[0]:
            if not os.read(pipe, 4096):
                break
            heard = time.monotonic()
            _give_up_when_stuck(limits)
        elif asked:
            os._exit(EXIT_ORPHANED)
        else:
            _ask_to_stop()
            asked = True
    _ask_to_stop()
    time.sleep(max(0.0, min(limits.grace_s, heard + limits.exit_s - time.monotonic())))
    os._exit(EXIT_ORPHANED)


def _ask_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _give_up_when_stuck(limits: Limits) -> None:
    """Wind up a timer that needs no interpreter: where foreign code keeps it, nothing else here ever runs again.

    It leaves the tracebacks of all threads on standard error, and exit status 1.
    """
    faulthandler.dump_traceback_later(limits.stuck_s, exit=True)
