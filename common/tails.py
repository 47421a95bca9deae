"""Watching a job's events live: one tail per job and web process, shared by all its watchers.

A tail costs one query per wake-up however many watch. A watcher reads the table itself only to catch up, in pages. So a
reconnect with the last sequence seen loses nothing and repeats nothing, and Redis is only ever a reason to look sooner.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID

import redis.asyncio
from django.conf import settings

from common.events import CHANNEL, JobEvent
from common.jobs import ENDED, Job
from common.outages import AWAY, RETRY_EVERY_S
from common.tenancy import organizations_scope
from common.threads import in_thread

logger = logging.getLogger(__name__)

PAGE = 500
BUFFER = 200
MIN_INTERVAL_S = 0.1  # a message an event saturates a process at 500 watchers of one run
LOOK_ANYWAY_S = 0.5
PING_EVERY_S = 10.0  # in silence: the other end may be gone without a word
LINGER_S = 15.0  # a proxy that restarts cuts everybody off: whoever comes back finds the tail with what they missed

_threads = ThreadPoolExecutor(2, thread_name_prefix="tails")  # news must not wait while thousands connect
_tails: dict[UUID | None, _Tail] = {}
_wakers: list[asyncio.Task[None]] = []


async def watch(job: Job, after: int) -> AsyncIterator[list[JobEvent]]:
    """All that is new after sequence `after`, in order, a batch at a time; ends after the terminal event.

    The fresher `job` is, the less is read. With the database away a watcher waits.
    """
    tail, cursor = _tail_of(job), after
    tail.enter()
    try:
        while True:
            changed = tail.changed  # taken before looking: what comes in between is not slept through
            batch = tail.since(cursor)
            if batch is None:
                batch = await _catch_up(job, cursor)
            if batch:
                cursor = batch[-1].sequence
                yield batch
            if tail.ended_at is not None and cursor >= tail.ended_at:
                return
            if not batch:
                await changed.wait()
    finally:
        tail.leave()


def _tail_of(job: Job) -> _Tail:
    if job.pk not in _tails:
        _tails[job.pk] = _Tail(job)
        _keep_waking()
    return _tails[job.pk]


def forget() -> None:
    """Drop all tails: the event loop that they belonged to has ended."""
    _tails.clear()
    _wakers.clear()


async def _catch_up(job: Job, after: int) -> list[JobEvent]:
    while True:
        try:
            return await in_thread(partial(_page, job, after))
        except AWAY:
            await asyncio.sleep(RETRY_EVERY_S)


class _Tail:
    """The newest events of one job, refreshed by a task of its own until nobody has watched for a while."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.watchers = 0
        self.events: deque[JobEvent] = deque(maxlen=BUFFER)
        self.complete_from = job.last_sequence  # `events` holds all after this sequence
        self.last = job.last_sequence  # the sequence up to which everything has been seen
        self.ended_at = job.last_sequence if job.has_ended else None
        self.changed = asyncio.Event()
        self.woken = asyncio.Event()
        self.woken.set()
        self._task = asyncio.create_task(self._follow())
        self._closing: asyncio.TimerHandle | None = None

    def enter(self) -> None:
        self.watchers += 1
        if self._closing is not None:
            self._closing.cancel()
            self._closing = None

    def leave(self) -> None:
        self.watchers -= 1
        if not self.watchers:
            self._closing = asyncio.get_running_loop().call_later(LINGER_S, self._close)

    def since(self, cursor: int) -> list[JobEvent] | None:
        """What the buffer holds after `cursor`; None where it does not reach back so far."""
        if cursor < self.complete_from:
            return None
        return [event for event in self.events if event.sequence > cursor]

    async def _follow(self) -> None:
        while self.ended_at is None:
            await self.woken.wait()
            self.woken.clear()
            try:
                await self._refresh()
            except (
                Exception
            ):  # the database is away, or a bug: _look_anyway wakes it again, since there is more to know
                logger.warning("Could not look for events of %s.", self.job.pk, exc_info=True)
            await asyncio.sleep(MIN_INTERVAL_S)

    async def _refresh(self) -> None:
        while page := await in_thread(partial(_page, self.job, self.last), _threads):
            self.events.extend(page)
            self.last = page[-1].sequence
            self.complete_from = max(self.complete_from, self.events[0].sequence - 1)
            if any(event.kind == "StatusChanged" and event.data["status"] in ENDED for event in page):
                self.ended_at = self.last
            self.changed.set()
            self.changed = asyncio.Event()

    def _close(self) -> None:
        self._task.cancel()
        if _tails.get(self.job.pk) is self:  # and was not forgotten
            del _tails[self.job.pk]


def _page(job: Job, after: int) -> list[JobEvent]:
    with organizations_scope([job.organization_id]):
        return job.event_model.page(job, after, PAGE)


# ---------------------------------------------------------------------------------------------- what wakes the tails


def _keep_waking() -> None:
    """Have the process's two tasks run that wake its tails."""
    if not _wakers or any(task.done() for task in _wakers):
        _wakers[:] = [asyncio.create_task(_listen()), asyncio.create_task(_look_anyway())]


async def _listen() -> None:
    """Wake a tail as soon as Redis says that there is more. While Redis is away, so is this."""
    task = asyncio.current_task()
    assert task is not None
    while True:
        client: Any = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=PING_EVERY_S)
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(CHANNEL)
                if task.cancelling():  # redis-py loses a cancellation that comes while it connects
                    raise asyncio.CancelledError
                await _wake_the_named(subscription)
        except (redis.RedisError, OSError):
            logger.warning("Redis is away: live events come half a second later.", exc_info=True)
            await asyncio.sleep(1)
        finally:
            await client.aclose()


async def _wake_the_named(subscription: Any) -> None:
    """Raises redis.TimeoutError once a ping has not been answered."""
    is_asked = False
    while True:
        message = await subscription.get_message(timeout=PING_EVERY_S)
        if message is not None:
            is_asked = False
            if message["type"] == "message" and (tail := _tails.get(_id(message["data"]))):
                tail.woken.set()
        elif is_asked:
            raise redis.TimeoutError("it does not answer")
        else:
            await subscription.ping()
            is_asked = True


def _id(data: bytes) -> UUID | None:
    try:
        return UUID(data.decode())
    except ValueError:  # whoever else publishes here
        return None


async def _look_anyway() -> None:
    """Now and then, wake the tails whose jobs have gone on, in one query for all of them: a message may be lost."""
    while True:
        await asyncio.sleep(LOOK_ANYWAY_S)
        by_model: defaultdict[type[Job], list[_Tail]] = defaultdict(list)
        for tail in _tails.values():
            if tail.ended_at is None:
                by_model[type(tail.job)].append(tail)
        try:
            for model, tails in by_model.items():
                newest = await in_thread(partial(_newest_sequences, model, [tail.job for tail in tails]), _threads)
                for tail in tails:
                    if newest.get(tail.job.pk, 0) > tail.last:
                        tail.woken.set()
        except Exception:  # the next look may succeed
            logger.warning("Could not look for events.", exc_info=True)


def _newest_sequences(model: type[Job], jobs: Sequence[Job]) -> dict[UUID, int]:
    with organizations_scope({job.organization_id for job in jobs}):
        return dict(model.objects.filter(pk__in=[job.pk for job in jobs]).values_list("pk", "last_sequence"))
