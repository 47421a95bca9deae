"""Who is next at the model, whether the server moves, and what it tells operators: over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference import client
from inference.client import InferenceError
from inference.engine.engine import EngineConfig
from inference.server import pulse
from inference.server.app import InferenceApp
from inference.server.backend import ServerConfig
from inference.server.http import EventStream
from inference.tickets import issue_status
from tests.inference.asking import running
from tests.inference.served import LONG, PROMPT, SECRET, Running, eventually
from training.trainer.artifact import adapter_digest


async def begun(
    http: httpx.AsyncClient, server: Running, organization: str, **fields: Any
) -> tuple[httpx.Response, Any]:
    """The answer to a request, and its lines after the first one, which is here."""
    body = {"ticket": server.ticket(organization=organization), **LONG, **fields}
    answer = await http.send(
        http.build_request("POST", f"{server.url}/generate", content=json.dumps(body)), stream=True
    )
    lines = answer.aiter_lines()
    await anext(lines)
    return answer, lines


@pytest.mark.usefixtures("endless")
def test_a_flood_of_one_organization_delays_another_by_no_more_than_its_turn(server: Running) -> None:
    """Two places, both taken, and a full line: whoever comes of another organization is next."""

    async def crowd() -> list[str]:
        async with httpx.AsyncClient(trust_env=False, timeout=30, limits=httpx.Limits(max_connections=None)) as http:
            order: list[str] = []

            async def ask(organization: str, new_tokens: int) -> int:
                answer, lines = await begun(http, server, organization, max_new_tokens=new_tokens)
                if answer.status_code == 200:
                    order.append(organization)
                async for _ in lines:
                    pass
                return answer.status_code

            flood = [asyncio.create_task(ask("org-1", 40)) for _ in range(4)]
            async with asyncio.timeout(10):
                while server.load != (2, 2):
                    await asyncio.sleep(0.01)
            other = asyncio.create_task(ask("org-2", 2))
            assert await asyncio.wait_for(other, 10) == 200
            assert order.index("org-2") == 2
            statuses = await asyncio.gather(*flood)
            assert sorted(statuses) == [200, 200, 200, 503], "the flood's newest has made room"
            return order

    assert sorted(asyncio.run(crowd())) == ["org-1"] * 3 + ["org-2"]


def test_long_requests_of_one_organization_leave_room_for_another(
    base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places for eight, room for two long requests: the second one waits in its organization's line."""
    engine = EngineConfig("tiny", base_path, device="cpu", slots=2, max_rank=16, threads=1, cache_tokens=256)
    app = InferenceApp(ServerConfig(engine), secret=SECRET, fetch=lambda *_: Path())
    with running(app) as url, ThreadPoolExecutor(6) as pool:
        server = Running(url, app, base_path)
        held = server.backend._engine
        assert held is not None
        assert app.backend.room_tokens == 256 - 16
        advance, may_hurry = held.advance, threading.Event()

        def slowly(sequences: list[Any]) -> Any:
            may_hurry.wait(0.02)
            return advance(sequences)

        monkeypatch.setattr(held, "_end_tokens", frozenset())
        monkeypatch.setattr(held, "advance", slowly)
        flood = [pool.submit(server.predict, LONG) for _ in range(6)]
        eventually(lambda: sum(server.load) == 6)
        assert server.load == (1, 5)
        other = server.predict({"prompt": "def", "max_new_tokens": 2}, organization="org-2")
        assert (other["completion_tokens"], [answer.done() for answer in flood]) == (2, [False] * 6)
        may_hurry.set()
        assert app.backend._scheduler is not None
        assert app.backend._scheduler.queued == 0
        assert [answer.result()["completion_tokens"] for answer in flood] == [120] * 6
        eventually(lambda: held.free_tokens == held.room_tokens == 256)  # the last is told before it leaves


@pytest.mark.usefixtures("endless")
def test_whoever_waits_longer_than_they_may_is_told_to_come_again(server: Running) -> None:
    async def crowd() -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            busy = [await begun(http, server, "org-1") for _ in range(2)]
            body = {"ticket": server.ticket(), **LONG, "wait_s": 0.1}
            refused = await http.post(f"{server.url}/generate", content=json.dumps(body))
            for answer, _ in busy:
                await answer.aclose()
            return refused

    tokens = server.status()["tokens"]
    refused = asyncio.run(crowd())
    assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
        503,
        "WAITED_TOO_LONG",
        "2",
    )
    eventually(lambda: server.load == (0, 0), timeout_s=2)
    status = server.status()
    assert status["ended"]["WAITED_TOO_LONG"] >= 1
    assert tokens < status["tokens"] < tokens + 100  # of the two that were given up, and none of the one that waited


@pytest.mark.parametrize("wait_s", [0, -1, 601, "soon", True, float("nan"), float("inf"), [5]])
def test_how_long_one_waits_is_a_number_of_seconds(server: Running, wait_s: Any) -> None:
    answer = server.post({"prompt": "x", "max_new_tokens": 1, "wait_s": wait_s})
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, "INVALID", "wait_s")


def test_a_slow_reader_keeps_no_place(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """The places are free once the model has done its work, whether or not anybody has read the answer."""
    may_write = threading.Event()
    write = EventStream.write

    async def held(self: EventStream, *values: Any, **how: Any) -> None:
        while not may_write.is_set():
            await asyncio.sleep(0.01)
        await write(self, *values, **how)

    monkeypatch.setattr(server.backend._engine, "_end_tokens", frozenset())
    monkeypatch.setattr(EventStream, "write", held)
    before = server.status()["ended"].get("LENGTH", 0)
    with ThreadPoolExecutor(4) as clients:  # more than there are places
        answers = [clients.submit(server.predict, LONG) for _ in range(4)]
        eventually(lambda: server.status()["ended"].get("LENGTH", 0) == before + 4)
        assert (server.load, [answer.done() for answer in answers]) == ((0, 0), [False] * 4)
        may_write.set()
        assert [answer.result()["completion_tokens"] for answer in answers] == [120] * 4


def test_it_is_ready_while_its_model_moves(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did lately is proof enough; after that it has to generate a token, really."""
    engine = server.backend._engine
    assert engine is not None
    generated, may_go_on = 0, threading.Event()
    advance = engine.advance

    def counted(sequence: Any) -> str:
        nonlocal generated
        assert may_go_on.wait(20)
        generated += 1
        return advance(sequence)

    monkeypatch.setattr(engine, "advance", counted)
    monkeypatch.setattr(pulse, "FRESH_S", 0.0)
    monkeypatch.setattr(pulse, "PATIENCE_S", 0.3)

    def readiness() -> httpx.Response:
        return httpx.get(f"{server.url}/readyz", trust_env=False)

    stuck = readiness()
    assert (stuck.status_code, stuck.json()["status"]) == (503, "not ready")
    assert stuck.json()["reason"].startswith("The model has done nothing for ")
    assert readiness().status_code == 503
    may_go_on.set()
    eventually(lambda: readiness().status_code == 200)
    asked = generated
    assert (readiness().status_code, generated) == (200, asked + 1)
    monkeypatch.setattr(pulse, "FRESH_S", 60.0)
    assert (readiness().status_code, generated) == (200, asked + 1)


def test_a_model_that_refused_the_question_is_asked_again(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = server.backend._scheduler
    assert scheduler is not None
    monkeypatch.setattr(pulse, "FRESH_S", 0.0)
    with monkeypatch.context() as full:
        full.setattr(pulse, "PATIENCE_S", 0.3)
        full.setattr(scheduler, "_queue_limit", -scheduler._active_limit)
        assert httpx.get(f"{server.url}/readyz", trust_env=False).status_code == 503
    assert httpx.get(f"{server.url}/readyz", timeout=30, trust_env=False).status_code == 200


def test_it_is_ready_while_it_reads_a_long_prompt(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a prompt tells nobody anything, and the proof would wait behind it."""
    engine = server.backend._engine
    assert engine is not None
    monkeypatch.setattr(engine, "config", replace(engine.config, prompt_tokens_a_step=1))
    monkeypatch.setattr(pulse, "FRESH_S", 0.0)
    monkeypatch.setattr(pulse, "PATIENCE_S", 0.3)
    advance = engine.advance
    parts, may_read, may_finish = threading.Semaphore(0), threading.Event(), threading.Event()

    def by_parts(sequences: list[Any]) -> Any:
        assert may_read.wait(20)
        if len(sequences[0].unread) == 1:
            assert may_finish.wait(20)
        else:
            time.sleep(0.02)
        parts.release()
        return advance(sequences)

    monkeypatch.setattr(engine, "advance", by_parts)

    def readiness() -> int:
        return httpx.get(f"{server.url}/readyz", trust_env=False).status_code

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(server.predict, {"prompt": "a" * 100, "max_new_tokens": 1})
        eventually(lambda: server.load == (1, 0))
        assert readiness() == 503, "it hangs before the first part"
        may_read.set()
        assert parts.acquire(timeout=20)
        heard_at = server.app._pulse._heard_at
        assert readiness() == 200
        assert server.app._pulse._heard_at == heard_at, "nobody was told anything"
        may_finish.set()
        assert answer.result()["prompt_tokens"] > 20


def test_operators_see_what_it_holds_and_has_done(server: Running, adapters: list[Path]) -> None:
    before = server.status()
    for adapter in (adapters[0], adapters[1], adapters[0]):
        server.predict({"prompt": PROMPT, "max_new_tokens": 3}, adapter)
    status = server.status()
    assert [(row["organization"], row["digest"]) for row in status["resident"]] == [
        ("org-1", adapter_digest(adapters[0])),
        ("org-1", adapter_digest(adapters[1])),
    ]
    assert status["found"]["slot"] >= before["found"]["slot"] + 1
    assert sum(status["found"].values()) == sum(before["found"].values()) + 3
    assert status["tokens"] >= before["tokens"] + 3 * 11
    facts = ("base_model", "device", "state", "slots", "places", "at_work", "most_waiting", "waiting", "organizations")
    assert [status[name] for name in facts] == ["tiny", "cpu", "ready", 2, 2, 0, 2, 0, []]


def test_an_adapter_in_a_slot_that_memory_has_lost_comes_from_storage(
    base_path: Path, adapters: list[Path], tmp_path: Path
) -> None:
    config = EngineConfig("tiny", base_path, device="cpu", slots=2, max_rank=16, threads=1)
    folders = {adapter_digest(folder): folder for folder in adapters}
    fetched: list[str] = []

    def fetch(key: str, digest: str) -> Path:
        fetched.append(digest)
        return folders[digest]

    app = InferenceApp(ServerConfig(config, host_adapters=1), secret=SECRET, fetch=fetch)
    with running(app) as url:
        server = Running(url, app, tmp_path)
        for adapter in (adapters[0], adapters[0], adapters[1], adapters[0]):
            server.predict({"prompt": "def", "max_new_tokens": 1}, adapter)
        assert fetched == [adapter_digest(adapters[place]) for place in (0, 1, 0)]
        assert server.status()["found"] == {"slot": 1, "memory": 0, "storage": 3}


def test_no_ticket_for_one_thing_is_good_for_another(server: Running) -> None:
    for path, ticket in (
        ("/status", server.ticket()),
        ("/status", issue_status("another installation's secret, as long")),
        ("/status", None),
        ("/generate", issue_status(SECRET)),
        ("/score", issue_status(SECRET)),
    ):
        answer = server.post({"prompt": "x", "rows": [{"text": "x"}], "ticket": ticket}, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "TICKET_REFUSED"), path
    assert httpx.get(f"{server.url}/status", trust_env=False).status_code == 405
    with pytest.raises(InferenceError) as refusal:
        client.status(server.url, "no ticket")
    assert refusal.value.code == "TICKET_REFUSED"


def test_one_thread_fetches_what_many_ask_for(base_path: Path, adapters: list[Path], tmp_path: Path) -> None:
    """While storage hangs, the base model answers, and whoever waits for the adapter holds no place."""
    fetched, may_go_on = [], threading.Event()

    def fetch(key: str, digest: str) -> Path:
        fetched.append(digest)
        assert may_go_on.wait(20)
        return adapters[0]

    engine = EngineConfig("tiny", base_path, device="cpu", slots=2, max_rank=16, threads=1)
    app = InferenceApp(ServerConfig(engine, active_limit=1), secret=SECRET, fetch=fetch)
    with running(app) as url, ThreadPoolExecutor(20) as clients:
        server = Running(url, app, tmp_path)
        request = {"prompt": PROMPT, "max_new_tokens": 3}
        waiting = [clients.submit(server.predict, request, adapters[0]) for _ in range(18)]
        eventually(lambda: fetched != [])
        assert server.predict(request)["adapter_digest"] is None
        with pytest.raises(InferenceError) as refusal:
            server.predict({**request, "wait_s": 0.1}, adapters[0])
        assert refusal.value.code == "WAITED_TOO_LONG"
        may_go_on.set()
        assert {answer.result()["adapter_digest"] for answer in waiting} == {adapter_digest(adapters[0])}
        assert fetched == [adapter_digest(adapters[0])]
        assert server.status()["found"]["storage"] == 18


def test_a_process_whose_model_has_died_is_of_no_use(base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()
    engine = EngineConfig("tiny", base_path, device="cpu", slots=2, max_rank=16, threads=1)
    app = InferenceApp(ServerConfig(engine), secret=SECRET, fetch=lambda *_: Path(), on_failure=failed.set)
    with running(app) as url:
        server = Running(url, app, base_path)
        assert app.backend._scheduler is not None
        monkeypatch.setattr(app.backend._scheduler, "_admit", lambda: 1 / 0)
        with pytest.raises(InferenceError) as failure:
            server.predict(LONG)
        assert (failure.value.code, failure.value.retry_after) == ("SHUTTING_DOWN", 2)
        assert failed.wait(10)
        readiness = httpx.get(f"{url}/readyz", trust_env=False)
        assert (readiness.status_code, readiness.json()["reason"]) == (503, "The model's thread has died.")
        with pytest.raises(InferenceError) as failure:
            server.predict(LONG)
        assert failure.value.code == "SHUTTING_DOWN"
        assert server.load == (0, 0)
