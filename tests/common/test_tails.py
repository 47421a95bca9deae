"""Watching a job: all of its events, in order, once, whoever else watches and whatever Redis does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from common import events, tails
from common.events import Event, JobEvent
from common.jobs import JobStatus
from common.tails import watch
from common.tenancy import operator
from common.threads import in_thread
from datasets.models import DatasetVersion
from tests.cast import make_person
from tests.common.test_claims import queue_versions

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def version() -> DatasetVersion:
    return queue_versions(make_person("Alice"), 1)[0]


@pytest.fixture
def no_redis(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_connection", None)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings.REDIS_URL = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"  # nobody listens there any more


def append(version: DatasetVersion, count: int, *, status: JobStatus | None = None) -> None:
    """Log `count` lines one transaction, and then a change of status."""
    with operator():
        jobs = DatasetVersion.objects.filter(pk=version.pk)
        jobs.advance([Event("LogLine", {"level": "INFO", "text": "x"})] * count)
        if status is not None:
            jobs.move(status)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def and_tidy() -> None:
        async with asyncio.timeout(20):
            await scenario()
        assert tails._tails == {}, "a tail outlives its last watcher"
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(and_tidy())


async def sequences(batches: AsyncIterator[list[JobEvent]], until: int | None = None) -> list[int]:
    """The sequences that come; to the end, or until one has come."""
    seen: list[int] = []
    async with aclosing(batches):  # type: ignore[type-var]
        async for batch in batches:
            seen += [event.sequence for event in batch]
            if until is not None and seen[-1] >= until:
                break
    return seen


@pytest.mark.parametrize("after", [0, 1, 7, 12])
def test_an_ended_job_tells_all_after_the_cursor_and_ends_at_once(version: DatasetVersion, after: int) -> None:
    append(version, 11, status=JobStatus.SUCCEEDED)

    async def scenario() -> None:
        assert await sequences(watch(version, after)) == list(range(after + 1, 13))

    run(scenario)


def test_what_happens_while_one_watches_arrives_in_order_to_the_terminal_event(version: DatasetVersion) -> None:
    append(version, 3)

    async def scenario() -> None:
        watching = asyncio.create_task(sequences(watch(version, 0)))
        late = asyncio.create_task(sequences(watch(version, 2)))
        for _ in range(10):
            await in_thread(lambda: append(version, 2))
            await asyncio.sleep(0.02)
        assert not watching.done() and not late.done()
        await in_thread(lambda: append(version, 1, status=JobStatus.FAILED))
        assert await watching == list(range(1, 26))
        assert await late == list(range(3, 26))

    run(scenario)


def test_watchers_share_one_tail_and_its_queries(version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    append(version, 1)
    pages: list[int] = []
    page = tails._page
    monkeypatch.setattr(tails, "_page", lambda job, after: pages.append(after) or page(job, after))

    async def scenario() -> None:
        watchers = [asyncio.create_task(sequences(watch(version, 1), until=2)) for _ in range(50)]
        while not all(tail.complete_from is not None for tail in tails._tails.values()) or not tails._tails:
            await asyncio.sleep(0.01)
        pages.clear()
        await in_thread(lambda: append(version, 1))
        assert await asyncio.gather(*watchers) == [[2]] * 50

    run(scenario)
    assert len(pages) < 10


def test_nothing_is_missed_while_pages_are_read_and_the_log_grows(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "PAGE", 7)
    monkeypatch.setattr(tails, "BUFFER", 20)
    append(version, 100)

    async def slowly() -> list[int]:
        seen: list[int] = []
        async for batch in watch(version, 0):
            seen += [event.sequence for event in batch]
            await asyncio.sleep(0.01)
        return seen

    async def scenario() -> None:
        slow, quick = asyncio.create_task(slowly()), asyncio.create_task(sequences(watch(version, 0)))
        for _ in range(30):
            await in_thread(lambda: append(version, 5))
        await in_thread(lambda: append(version, 1, status=JobStatus.CANCELLED))
        assert await slow == await quick == list(range(1, 253))

    run(scenario)


def test_a_reconnect_with_the_last_sequence_loses_nothing_and_repeats_nothing(version: DatasetVersion) -> None:
    append(version, 2)

    async def scenario() -> None:
        seen: list[int] = []
        for until in (2, 5, 6):
            reading = asyncio.create_task(sequences(watch(version, seen[-1] if seen else 0), until=until))
            await asyncio.sleep(0.05)
            count = until - max(2, seen[-1] if seen else 0)
            await in_thread(lambda count=count: append(version, count))  # type: ignore[misc]
            seen += await reading
        assert seen == [1, 2, 3, 4, 5, 6]

    run(scenario)


def test_with_redis_away_events_come_all_the_same(
    version: DatasetVersion, no_redis: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "LOOK_ANYWAY_S", 0.2)
    append(version, 1)

    async def scenario() -> None:
        watching = asyncio.create_task(sequences(watch(version, 0)))
        await asyncio.sleep(0.1)
        await in_thread(lambda: append(version, 3, status=JobStatus.SUCCEEDED))
        assert await watching == [1, 2, 3, 4, 5]

    run(scenario)


def test_redis_wakes_a_watcher_that_would_otherwise_sleep(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "LOOK_ANYWAY_S", 3600)
    append(version, 1)

    async def scenario() -> None:
        watching = asyncio.create_task(sequences(watch(version, 1), until=2))
        while tails._listener is None or not await in_thread(_listened_to):
            await asyncio.sleep(0.02)
        await asyncio.sleep(2 * tails.MIN_INTERVAL_S)  # it has looked for the first time, and sleeps
        await in_thread(lambda: append(version, 1))
        assert await watching == [2]

    run(scenario)


def _listened_to() -> bool:
    from common.queues import connect

    with connect() as client:
        return dict(client.pubsub_numsub(tails.CHANNEL))[tails.CHANNEL.encode()] > 0


def test_another_jobs_events_are_no_ones_business(version: DatasetVersion) -> None:
    (other,) = queue_versions(make_person("Charlie"), 1)
    append(version, 1)

    async def scenario() -> None:
        watching = asyncio.create_task(sequences(watch(version, 0)))
        await in_thread(lambda: append(other, 5, status=JobStatus.FAILED))
        await in_thread(lambda: append(version, 1, status=JobStatus.SUCCEEDED))
        assert await watching == [1, 2, 3]

    run(scenario)


def test_the_listener_can_be_stopped_at_any_moment() -> None:
    async def scenario(moment: int) -> None:
        listener = asyncio.create_task(tails._wake_tails())
        for _ in range(moment):  # so many turns of the event loop into its connecting
            await asyncio.sleep(0)
        listener.cancel()
        await asyncio.wait([listener], timeout=10)
        assert listener.cancelled()

    for moment in range(12):
        asyncio.run(scenario(moment))


async def test_a_tail_that_is_closed_as_it_is_woken_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Woken(tails._Tail):
        async def _refresh(self) -> None:
            self.refreshed = True

    monkeypatch.setattr(tails, "MIN_INTERVAL_S", 0)
    monkeypatch.setattr(tails, "_listen", lambda: None)
    tail = Woken(DatasetVersion())
    for _ in range(10):
        await asyncio.sleep(0)
    tail.woken.set()
    await asyncio.sleep(0)
    tail.close()
    await asyncio.wait([tail._task], timeout=5)
    assert tail._task.done()
