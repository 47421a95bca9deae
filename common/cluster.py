"""The watch over a queue's django-q2 cluster, kept by the cluster's own parent process.

A cluster can freeze: an idle worker that is killed takes the queue's lock with it, and from then on the others wait for
ever, while django-q2 reports itself as working and swallows rings. So every two seconds a pulse goes through the cluster's own
pusher and queue, and a worker that takes it echoes into memory that it shares with this process.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import redis
from django.conf import settings

from common.queues import connect, pulse, pulses_unheard

logger = logging.getLogger(__name__)

PULSE_EVERY_S = 2.0
FROZEN_AFTER_S = 6.0
FIRST_ECHO_S = 30.0  # a start, or a Redis that was away: the pusher sleeps for ten seconds before it tries again
GIVE_BACK_S = 35.0
FREE_AGAIN_S = 15.0  # what a frozen cluster's other workers get, so that new work starts within half a minute
BEAT_EVERY_S = 1.0
STUCK_AFTER_S = 60.0  # by then its lease has run out
PRESENCE_S = 10
KEYS_AT_ONCE = 1_000  # of all that Redis has: each exchange looks at so many
UNHEARD_PULSES = 4

# Shared with the workers, which are forked from this process. No locks: whoever holds one may be killed.
_echoed_at = multiprocessing.RawValue("d", 0.0)  # CLOCK_MONOTONIC
_busy = multiprocessing.RawArray("i", 4096)  # a busy worker's process id, at that modulo the length
_beat_at = multiprocessing.RawArray("d", len(_busy))  # CLOCK_MONOTONIC when it was last seen to move


def echo() -> None:
    """What a worker does with a pulse."""
    _echoed_at.value = time.monotonic()


@contextmanager
def busy() -> Iterator[None]:
    """What a worker does in this block lets pulses wait. A thread of its own shows that the process is not stopped.

    It was rung for through the same queue as a pulse, and so it is an echo, too.
    """
    echo()
    place, done = os.getpid() % len(_busy), threading.Event()

    def beat() -> None:
        while not done.wait(BEAT_EVERY_S):
            _beat_at[place] = time.monotonic()

    try:
        _beat_at[place], _busy[place] = time.monotonic(), os.getpid()
        threading.Thread(target=beat, name="beat", daemon=True).start()
        yield
    finally:
        done.set()
        _busy[place] = 0


class Watch:
    """Whether the cluster of `queue`, whose processes descend from this one, still takes what is rung for."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        self.workers: int = settings.QUEUES[queue]
        self._looked_at = 0.0
        self._waiting_since: float | None = None
        self._silence_limit_s = FIRST_ECHO_S

    def finds_it_frozen(self) -> bool:
        """Send a pulse, and judge by the echoes so far. Workers that are stuck at a job are killed on the way."""
        now = time.monotonic()
        if now - self._looked_at > FROZEN_AFTER_S:
            self._waiting_since = None  # this process stood still, as on a suspended machine, and so did the workers
        else:
            _kill_stuck_workers(now)
        self._looked_at = now
        occupied = len(busy_workers())
        try:
            self._be_seen(occupied)
            if pulses_unheard(self.queue) < UNHEARD_PULSES:
                pulse(self.queue)
        except redis.RedisError:
            self._waiting_since, self._silence_limit_s = None, FIRST_ECHO_S
            return False
        if occupied >= self.workers:
            self._waiting_since = None
            return False
        if self._waiting_since is None:
            self._waiting_since = now
        if _echoed_at.value > self._waiting_since:
            self._waiting_since, self._silence_limit_s = _echoed_at.value, FROZEN_AFTER_S
        return now - self._waiting_since > self._silence_limit_s

    def _be_seen(self, occupied: int) -> None:
        silent_s = time.monotonic() - _echoed_at.value if _echoed_at.value else None
        presence = {"workers": self.workers, "busy": occupied, "silent_s": silent_s}
        with connect() as client:
            client.set(
                f"{_presence_key(self.queue)}{socket.gethostname()}:{os.getpid()}", json.dumps(presence), ex=PRESENCE_S
            )


def busy_workers() -> list[int]:
    """The process ids of this cluster's workers that have something to do."""
    return [process.pid for process in _descendants() if _busy[process.pid % len(_busy)] == process.pid]


def _kill_stuck_workers(now: float) -> None:
    """Their jobs are for others by now, and without them the cluster has fewer workers than it says.

    A busy one holds no lock of the queue, so its siblings go on, and django-q2 starts another one.
    """
    for pid in busy_workers():
        if now - _beat_at[pid % len(_busy)] > STUCK_AFTER_S:
            logger.error("Worker %d has not moved for %.0f s, and is killed.", pid, STUCK_AFTER_S)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def ask_back() -> None:
    """Ask the workers that have a job to give it back, and to end."""
    for pid in busy_workers():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def end(give_back_s: float) -> None:
    """Let the workers that have a job give it back, for so long at most, and kill what is left of the cluster."""
    ask_back()
    deadline = time.monotonic() + give_back_s
    while busy_workers() and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in _descendants():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def clusters(queue: str) -> list[dict[str, Any]]:
    """The clusters of `queue` that are alive, on any host: workers, busy, and for how long none echoed (seconds or None).

    Raises redis.RedisError.
    """
    return _present(f"{_presence_key(queue)}*")


def at_work_here(queue: str) -> int | None:
    """How many workers of `queue` are busy on this host; None where it has none. Raises redis.RedisError."""
    found = _present(f"{_presence_key(queue)}{socket.gethostname()}:*")
    return sum(presence["busy"] for presence in found) if found else None


def _present(pattern: str) -> list[dict[str, Any]]:
    with connect() as client:
        keys = sorted(client.scan_iter(pattern, count=KEYS_AT_ONCE))
        values: Any = client.mget(keys) if keys else []
    return [presence for value in values if value and (presence := _presence(value))]


def _presence(value: bytes) -> dict[str, Any] | None:
    try:
        presence = json.loads(value)
    except ValueError:
        return None
    return presence if isinstance(presence, dict) and presence.keys() == {"workers", "busy", "silent_s"} else None


def _presence_key(queue: str) -> str:
    return f"cluster:{queue}:"


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)
