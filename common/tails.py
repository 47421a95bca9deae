"""Watching a job's events live: one tail per job and web process, shared by all its watchers.

A tail costs one query per wake-up however many watch. A watcher reads the table itself only to catch up, in pages. So a
reconnect with the last sequence seen loses nothing and repeats nothing, and Redis is only ever a reason to look sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import redis.asyncio
from django.conf import settings

from common.events import CHANNEL, JobEvent
from common.jobs import ENDED, Job
from common.tenancy import organizations_scope
from common.threads import in_thread

logger = logging.getLogger(__name__)

PAGE = 500
BUFFER = 1000
MIN_INTERVAL_S = 0.1  # a message an event saturates a process at 500 watchers of one run
LOOK_ANYWAY_S = 1.0

_tails: dict[UUID, _Tail] = {}
_listener: asyncio.Task[None] | None = None


async def watch(job: Job, after: int) -> AsyncIterator[list[JobEvent]]:
    """All that is new after sequence `after`, in order, a batch at a time; ends after the terminal event."""
    tail, cursor = _tails.get(job.pk), after
    if tail is None:
        tail = _tails[job.pk] = _Tail(job)
    tail.watchers += 1
    try:
        while True:
            changed = tail.changed  # taken before looking: what comes in between is not slept through
            batch = tail.since(cursor)
            if batch is None:
                batch = await in_thread(partial(_page, job, cursor))
            if batch:
                cursor = batch[-1].sequence
                yield batch
            if tail.ended_at is not None and cursor >= tail.ended_at:
                return
            if not batch:
                await changed.wait()
    finally:
        tail.watchers -= 1
        if not tail.watchers:
            tail.close()


class _Tail:
    """The newest events of one job, refreshed by a task of its own while anybody watches."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.watchers = 0
        self.events: deque[JobEvent] = deque(maxlen=BUFFER)
        self.last = 0  # the sequence up to which everything has been seen
        self.complete_from: int | None = None  # `events` holds all after this sequence
        self.ended_at: int | None = None
        self.changed = asyncio.Event()
        self.woken = asyncio.Event()
        self._task = asyncio.create_task(self._follow())
        _listen()

    def since(self, cursor: int) -> list[JobEvent] | None:
        """What the buffer holds after `cursor`; None where it does not reach back so far."""
        if self.complete_from is None or cursor < self.complete_from:
            return None
        return [event for event in self.events if event.sequence > cursor]

    async def _follow(self) -> None:
        while self.ended_at is None:
            self.woken.clear()
            try:
                await self._refresh()
            except Exception:  # the database is away, or a bug: watchers keep waiting, and the next look may succeed
                logger.warning("Could not look for events of %s.", self.job.pk, exc_info=True)
            await asyncio.sleep(MIN_INTERVAL_S)
            # not wait_for, which (before Python 3.12) loses a cancellation that comes together with the event
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_ANYWAY_S):
                    await self.woken.wait()

    async def _refresh(self) -> None:
        if self.complete_from is None:
            self.last = self.complete_from = await in_thread(self._newest_sequence)
            self._tell()
        while page := await in_thread(lambda: _page(self.job, self.last)):
            self.events.extend(page)
            self.last = page[-1].sequence
            self.complete_from = max(self.complete_from, self.events[0].sequence - 1)
            if any(event.kind == "StatusChanged" and event.data["status"] in ENDED for event in page):
                self.ended_at = self.last
            self._tell()

    def _newest_sequence(self) -> int:
        with organizations_scope([self.job.organization_id]):
            job = type(self.job).objects.get(pk=self.job.pk)
        if job.has_ended:
            self.ended_at = job.last_sequence
        return job.last_sequence

    def _tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def close(self) -> None:
        self._task.cancel()
        if _tails.get(self.job.pk) is self:
            del _tails[self.job.pk]


def _page(job: Job, after: int) -> list[JobEvent]:
    with organizations_scope([job.organization_id]):
        return job.event_model.page(job, after, PAGE)


def _listen() -> None:
    """Start the process's one Redis listener; while Redis is away each tail looks by itself once a second."""
    global _listener
    if _listener is None or _listener.done():
        _listener = asyncio.create_task(_wake_tails())


async def _wake_tails() -> None:
    task = asyncio.current_task()
    assert task is not None
    while True:
        client: Any = redis.asyncio.Redis.from_url(settings.REDIS_URL)
        try:
            async with client.pubsub() as subscription:
                await subscription.subscribe(CHANNEL)
                if task.cancelling():  # redis-py loses a cancellation that comes while it connects
                    raise asyncio.CancelledError
                async for message in subscription.listen():
                    if message["type"] == "message" and (tail := _tails.get(UUID(message["data"].decode()))):
                        tail.woken.set()
        except (redis.RedisError, OSError) as error:
            logger.warning("Redis is away (%s): live events come once a second.", error)
            await asyncio.sleep(1)
        finally:
            await client.aclose()
