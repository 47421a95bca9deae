"""Moving a job's files, which may take longer than a lease lasts, and longer than anybody should wait for its end."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.db import connection

from common.held import HeldJob, LeaseLost
from common.jobs import HEARTBEAT_S
from common.outages import AWAY, Patience

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class CalledAway(BaseException):
    """The files are not wanted any more, or not from this process. Not an Exception, which libraries would catch."""


@contextmanager
def renewed(job: HeldJob, is_stopping: Callable[[], bool], patience_s: float) -> Iterator[None]:
    """Renew the lease from a thread while this one, which has to be the main one, moves files.

    Raises LeaseLost where the lease is another's. Raises CalledAway wherever the main thread is, once a cancel is asked
    for, or this process is to stop and `patience_s` have passed since.
    """
    with _callable_away() as call:
        watch = _Watch(job, is_stopping, patience_s, call)
        watch.start()
        try:
            yield
        except CalledAway:
            connection.close()  # whatever it was in the middle of
            if not watch.lost:
                raise
        finally:
            watch.done.set()
            watch.join()
    if watch.lost:
        raise LeaseLost


@contextmanager
def _callable_away() -> Iterator[Callable[[], None]]:
    """A function for other threads that raises CalledAway in this one, within this block."""
    inside = True

    def leave(number: int, frame: FrameType | None) -> None:
        if inside:
            raise CalledAway

    main = threading.get_ident()
    previous = signal.signal(signal.SIGUSR1, leave)
    try:
        yield lambda: signal.pthread_kill(main, signal.SIGUSR1)
    finally:
        inside = False
        signal.signal(signal.SIGUSR1, previous)


class _Watch(threading.Thread):
    def __init__(
        self, job: HeldJob, is_stopping: Callable[[], bool], patience_s: float, call: Callable[[], None]
    ) -> None:
        super().__init__(name="lease", daemon=True)
        self.done = threading.Event()
        self.lost = False
        self._job, self._is_stopping, self._patience_s, self._call = job, is_stopping, patience_s, call

    def run(self) -> None:
        try:
            self._look()
        except LeaseLost:
            self._lose()
        except Exception:
            logger.exception("The lease of %s could not be renewed.", self._job.lease.job_id)
            self._lose()
        finally:
            connection.close()

    def _look(self) -> None:
        patience, next_heartbeat, stopping_since = Patience(), 0.0, None
        while not self.done.wait(LOOK_EVERY_S):
            now = time.monotonic()
            if stopping_since is None and self._is_stopping():
                stopping_since = now
            try:
                if now >= next_heartbeat:
                    self._job.renew()
                    next_heartbeat = now + HEARTBEAT_S
                is_cancelled = self._job.is_cancelled()
                patience.over()
            except AWAY as error:
                patience.note(error)
                is_cancelled = False
            if is_cancelled or (stopping_since is not None and now - stopping_since >= self._patience_s):
                self._call()
                return

    def _lose(self) -> None:
        self.lost = True
        self._call()
