"""Watching a job: all of its events, in order, once, whoever else watches and whatever Redis does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest
import redis
from django.db import OperationalError

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


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "LINGER_S", 0.1)


@pytest.fixture
def nobody_publishes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever logs events cannot reach Redis."""
    monkeypatch.setattr(events, "_connection", redis.Redis.from_url(f"redis://127.0.0.1:{free_port()}/0"))


@pytest.fixture
def no_redis(settings: Any, nobody_publishes: None) -> None:
    """Nor can the listener."""
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def append(version: DatasetVersion, count: int, *, status: JobStatus | None = None) -> None:
    """Log `count` lines one transaction, and then a change of status."""
    with operator():
        jobs = DatasetVersion.objects.filter(pk=version.pk)
        jobs.advance([Event("LogLine", {"level": "INFO", "text": "x"})] * count)
        if status is not None:
            jobs.move(status)


def refresh(version: DatasetVersion) -> None:
    with operator():
        version.refresh_from_db()


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def and_tidy() -> None:
        async with asyncio.timeout(20):
            await scenario()
            await until(lambda: not tails._tails)  # a tail does not outlive its last watcher for long
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(and_tidy())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.01)


def knows(version: DatasetVersion, sequence: int) -> bool:
    """Whether the version's tail has looked, and found all up to here."""
    tail = tails._tails.get(version.pk)
    return tail is not None and tail.last == sequence and not tail.woken.is_set()


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
        assert not watching.done() and not late.done()
        await in_thread(lambda: append(version, 1, status=JobStatus.FAILED))
        assert await watching == list(range(1, 26))
        assert await late == list(range(3, 26))

    run(scenario)


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences after which pages are read."""
    read: list[int] = []
    page = tails._page
    monkeypatch.setattr(tails, "_page", lambda job, after: read.append(after) or page(job, after))
    return read


def test_watchers_share_one_tail_and_its_queries(version: DatasetVersion, pages: list[int]) -> None:
    append(version, 1)

    async def scenario() -> None:
        watchers = [asyncio.create_task(sequences(watch(version, 1), until=2)) for _ in range(50)]
        await until(lambda: knows(version, 1))
        pages.clear()
        await in_thread(lambda: append(version, 1))
        assert await asyncio.gather(*watchers) == [[2]] * 50

    run(scenario)
    assert {2} <= set(pages) <= {1, 2} and len(pages) < 10  # what follows 1 may have been asked for just before


def test_whoever_was_cut_off_finds_the_tail_with_what_came_meanwhile(
    version: DatasetVersion, pages: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "LINGER_S", 1.0)
    append(version, 2)
    refresh(version)

    async def scenario() -> None:
        watchers = [asyncio.create_task(sequences(watch(version, 2))) for _ in range(20)]
        await until(lambda: knows(version, 2))
        for watcher in watchers:
            watcher.cancel()
        await asyncio.wait(watchers)
        await in_thread(lambda: append(version, 3))
        await until(lambda: knows(version, 5))
        pages.clear()
        again = [asyncio.create_task(sequences(watch(version, 2), until=6)) for _ in range(20)]
        await in_thread(lambda: append(version, 1))
        assert await asyncio.gather(*again) == [[3, 4, 5, 6]] * 20

    run(scenario)
    assert set(pages) <= {5, 6}


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
        for last in (5, 6, 9):
            cursor = seen[-1] if seen else 0
            reading = asyncio.create_task(sequences(watch(version, cursor), until=last))
            await until(lambda: version.pk in tails._tails and tails._tails[version.pk].watchers == 1)
            await in_thread(partial(append, version, last - max(2, cursor)))
            seen += await reading
        assert seen == list(range(1, 10))

    run(scenario)


def test_with_redis_away_events_come_all_the_same(
    version: DatasetVersion, no_redis: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "LOOK_ANYWAY_S", 0.2)
    append(version, 1)

    async def scenario() -> None:
        watching = asyncio.create_task(sequences(watch(version, 0)))
        await until(lambda: knows(version, 1))
        await in_thread(lambda: append(version, 3, status=JobStatus.SUCCEEDED))
        assert await watching == [1, 2, 3, 4, 5]

    run(scenario)


def test_where_no_message_comes_one_query_looks_for_all_tails(
    nobody_publishes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "LOOK_ANYWAY_S", 0.2)
    versions = queue_versions(make_person("Alice"), 3) + queue_versions(make_person("Charlie"), 3)
    looks: list[set[Any]] = []
    look = tails._newest_sequences
    monkeypatch.setattr(
        tails,
        "_newest_sequences",
        lambda model, jobs: looks.append({job.pk for job in jobs}) or look(model, jobs),
    )

    async def scenario() -> None:
        watchers = [asyncio.create_task(sequences(watch(version, 0), until=2)) for version in versions]
        await until(lambda: all(knows(version, 0) for version in versions))
        for version in versions:
            await in_thread(lambda version=version: append(version, 2))  # type: ignore[misc]
        assert await asyncio.gather(*watchers) == [[1, 2]] * 6

    run(scenario)
    assert {version.pk for version in versions} in looks


def test_with_the_database_away_watchers_wait(version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tails, "LOOK_ANYWAY_S", 0.2)
    monkeypatch.setattr(tails, "RETRY_EVERY_S", 0.2)
    append(version, 3)
    refresh(version)
    away = True
    failures: list[int] = []
    page = tails._page

    def page_unless_away(job: DatasetVersion, after: int) -> list[JobEvent]:
        if away:
            failures.append(after)
            raise OperationalError("server closed the connection unexpectedly")
        return page(job, after)

    monkeypatch.setattr(tails, "_page", page_unless_away)

    async def scenario() -> None:
        nonlocal away
        behind = asyncio.create_task(sequences(watch(version, 0), until=5))
        level = asyncio.create_task(sequences(watch(version, 3), until=5))
        await in_thread(lambda: append(version, 2))
        await until(lambda: failures.count(0) > 1 and failures.count(3) > 1)
        away = False
        assert await behind == [1, 2, 3, 4, 5]
        assert await level == [4, 5]

    run(scenario)


def test_redis_wakes_a_watcher_that_would_otherwise_sleep(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tails, "LOOK_ANYWAY_S", 3600)
    append(version, 1)

    async def scenario() -> None:
        watching = asyncio.create_task(sequences(watch(version, 1), until=2))
        await until(lambda: knows(version, 1))
        while not await in_thread(_listened_to):
            await asyncio.sleep(0.02)
        await in_thread(lambda: append(version, 1))
        assert await watching == [2]

    run(scenario)


@pytest.mark.parametrize("said", [b"hello", b"\xff\xfe", b""])
def test_what_others_say_in_our_channel_is_not_heard(
    version: DatasetVersion, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(tails, "LOOK_ANYWAY_S", 3600)
    append(version, 1)

    async def scenario() -> None:
        watching = asyncio.create_task(sequences(watch(version, 1), until=2))
        await until(lambda: knows(version, 1))
        while not await in_thread(_listened_to):
            await asyncio.sleep(0.02)
        assert await in_thread(lambda: _publish(said)) == 1
        await in_thread(lambda: append(version, 1))
        assert await watching == [2]

    run(scenario)


def _publish(said: bytes) -> int:
    from common.queues import connect

    with connect() as client:
        return client.publish(tails.CHANNEL, said)


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
        listener = asyncio.create_task(tails._listen())
        for _ in range(moment):  # so many turns of the event loop into its connecting
            await asyncio.sleep(0)
        listener.cancel()
        await asyncio.wait([listener], timeout=10)
        assert listener.cancelled()

    for moment in range(12):
        asyncio.run(scenario(moment))
