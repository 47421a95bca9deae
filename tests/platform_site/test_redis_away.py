"""The web process needs no Redis: what is submitted is kept, and what is watched goes on, while Redis is away or hangs."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis import Redis as Client
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from common.events import Event
from common.tenancy import operator
from common.threads import in_thread
from platform_site.engines import urls
from platform_site.engines.place import Place
from platform_site.engines.redis import Redis
from tests.cast import Person, make_person
from tests.faults.servers import ServerProcess
from tests.rows import global_id, make_run, make_version
from tests.web import soon, web_process
from training.models import TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

START = """
mutation ($input: StartTrainingRunInput!) {
  startTrainingRun(input: $input) { __typename ... on TrainingRun { id status } }
}
"""
WATCH = "subscription ($id: ID!) { trainingRunEvents(id: $id) { sequence } }"


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def redis(folder: Path) -> Iterator[ServerProcess]:
    """A server of the test's own, which runs at first."""
    place = Place(folder)
    place.log("redis").parent.mkdir()
    server = ServerProcess(Redis(place), place, folder)
    server.start()
    server.wait_ready()
    yield server
    server.stop()


@pytest.fixture
def site(redis: ServerProcess, folder: Path, tmp_path: Path) -> Iterator[str]:
    with web_process(tmp_path, REDIS_URL=urls(folder)[1]) as url:
        yield url


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def start_run(site: str, person: Person) -> None:
    version = make_version(person)
    body = {"query": START, "variables": {"input": {"datasetVersionId": global_id(version)}}}
    headers = {"Authorization": f"Bearer {person.token}"}
    answer = httpx.post(f"{site}/graphql", json=body, headers=headers, trust_env=False, timeout=10)
    assert answer.status_code == 200
    started = answer.json()["data"]["startTrainingRun"]
    assert (started["__typename"], started["status"]) == ("TrainingRun", "QUEUED")


async def watched(site: str, person: Person, run: TrainingRun, count: int) -> list[int]:
    """The sequences of a run's first `count` events, of which all but the first are written while it is watched."""
    seen: list[int] = []
    address = site.replace("http://", "ws://") + "/graphql"
    async with connect(address, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None) as socket:
        init = {"type": "connection_init", "payload": {"authorization": f"Bearer {person.token}"}}
        subscribe = {"query": WATCH, "variables": {"id": global_id(run)}}
        await socket.send(json.dumps(init))
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": subscribe}))
        while len(seen) < count:
            message = json.loads(await asyncio.wait_for(socket.recv(), 10))
            if message["type"] == "next":
                seen += [event["sequence"] for event in message["payload"]["data"]["trainingRunEvents"]]
                await in_thread(lambda: write(run))
    return seen[:count]


def write(run: TrainingRun) -> None:
    with operator():
        TrainingRun.objects.filter(pk=run.pk).advance([Event("LogLine", {"level": "INFO", "text": "x"})])


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_runs_are_started_and_watched_while_redis_is_away_or_hangs(
    redis: ServerProcess, site: str, ada: Person, fault: str
) -> None:
    assert httpx.get(f"{site}/readyz", trust_env=False).json() == {"status": "ok"}
    getattr(redis, fault)()
    assert not redis.answers()

    start_run(site, ada)
    began = time.monotonic()
    start_run(site, ada)
    assert time.monotonic() - began < 2, "one that hangs is waited for once, and then left alone for a while"
    run = make_run(ada)
    write(run)
    assert asyncio.run(watched(site, ada, run, 3)) == [1, 2, 3]
    ready = httpx.get(f"{site}/readyz", trust_env=False, timeout=10)
    reason = "It cannot be reached. Jobs are kept, and wait; live events come half a second later."
    assert (ready.status_code, ready.json()) == (200, {"status": "ok", "degraded": {"redis": reason}})

    redis.resume() if fault == "pause" else redis.start()
    assert soon(lambda: httpx.get(f"{site}/readyz", trust_env=False).json() == {"status": "ok"})
    began = time.monotonic()
    start_run(site, ada)
    assert time.monotonic() - began < 1
    assert asyncio.run(watched(site, ada, run, 5)) == [1, 2, 3, 4, 5]


def test_a_redis_that_takes_no_writes_is_no_healthy_one(
    redis: ServerProcess, site: str, ada: Person, folder: Path
) -> None:
    with Client.from_url(urls(folder)[1]) as client:
        client.config_set("maxmemory", 1)
        start_run(site, ada)
        ready = httpx.get(f"{site}/readyz", trust_env=False, timeout=10)
        assert ready.status_code == 200
        assert ready.json()["degraded"]["redis"].startswith("It refuses writes (")
        client.config_set("maxmemory", 0)
    assert soon(lambda: httpx.get(f"{site}/readyz", trust_env=False).json() == {"status": "ok"})
