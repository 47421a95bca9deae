"""The server over real HTTP, and the client that the web process reaches it with."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference import client
from inference.client import InferenceError
from inference.engine.engine import EngineConfig
from inference.server import pulse
from inference.server.app import InferenceApp
from inference.server.backend import Backend, ServerConfig
from inference.server.cache import cached_fetch
from inference.server.http import EventStream
from inference.tickets import Ticket, issue, issue_status
from tests.inference.asking import running
from training.trainer.artifact import adapter_digest

SECRET = "an installation's secret, 32 bytes or longer"
PROMPT = "def add(a, b):\n"
LONG = {"prompt": "def", "max_new_tokens": 120, "temperature": 1.0, "seed": 3}


@dataclass(frozen=True)
class Running:
    url: str
    app: InferenceApp
    storage: Path

    @property
    def backend(self) -> Backend:
        return self.app.backend

    @property
    def load(self) -> tuple[int, int]:
        """Requests at work, and waiting."""
        status = self.status()
        return status["at_work"], status["waiting"]

    def status(self) -> dict[str, Any]:
        return client.status(self.url, issue_status(SECRET))

    def ticket(self, adapter: Path | None = None, max_new_tokens: int = 200, **changes: Any) -> str:
        key = None if adapter is None else f"t/org-1/adapters/{adapter.name}"
        digest = None if adapter is None else adapter_digest(adapter)
        fields = {"organization": "org-1", "base": "tiny", "adapter_key": key, "adapter_digest": digest}
        return issue(Ticket(max_new_tokens=max_new_tokens, **(fields | changes)), SECRET)

    def predict(self, request: dict[str, Any], adapter: Path | None = None, **changes: Any) -> dict[str, Any]:
        return client.predict(self.url, self.ticket(adapter, **changes), request, timeout_s=30)

    def post(self, body: dict[str, Any], path: str = "/generate") -> httpx.Response:
        content = json.dumps({"ticket": self.ticket(), **body})
        return httpx.post(self.url + path, content=content, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def server(base_path: Path, adapters: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    storage = tmp_path_factory.mktemp("storage")
    for folder in adapters:
        key = storage / "t" / "org-1" / "adapters" / folder.name
        key.parent.mkdir(parents=True, exist_ok=True)
        key.symlink_to(folder)
    fetch = cached_fetch(lambda key: (storage / key).open("rb"), tmp_path_factory.mktemp("cache"))
    engine = EngineConfig("tiny", base_path, device="cpu", slots=2, max_rank=16, threads=1)
    app = InferenceApp(ServerConfig(engine, active_limit=2, queue_limit=2), secret=SECRET, fetch=fetch)
    with running(app) as url:
        yield Running(url, app, storage)
    assert not app.backend.ready


@pytest.fixture
def endless(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """No generation ends by itself before max_new_tokens, and each takes a while."""
    assert server.backend._scheduler is not None
    engine = server.backend._scheduler._engine
    advance = engine.advance

    def slowly(sequence: Any) -> str:
        time.sleep(0.02)
        return advance(sequence)

    monkeypatch.setattr(engine, "_end_tokens", frozenset())
    monkeypatch.setattr(engine, "advance", slowly)


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def collect(server: Running, request: dict[str, Any], adapter: Path | None = None) -> list[dict[str, Any]]:
    async with aclosing(client.stream(server.url, server.ticket(adapter), request)) as chunks:
        return [chunk async for chunk in chunks]


def test_health(server: Running) -> None:
    assert httpx.get(f"{server.url}/livez", trust_env=False).json() == {"status": "up"}
    ready = httpx.get(f"{server.url}/readyz", trust_env=False)
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "active": 0, "queued": 0})


def test_predictions_carry_text_counts_and_digest(server: Running, adapters: list[Path]) -> None:
    request = {"prompt": PROMPT, "max_new_tokens": 20}
    answers = [server.predict(request, adapter) for adapter in (*adapters, None)]
    assert [answer["adapter_digest"] for answer in answers] == [*(adapter_digest(path) for path in adapters), None]
    assert len({answer["text"] for answer in answers}) == 4
    last = answers[-1]
    assert set(last) == {
        *("text", "prompt_tokens", "completion_tokens", "finish_reason", "adapter_digest", "base_model", "seconds")
    }
    assert last["prompt_tokens"] == 10
    assert last["base_model"] == "tiny"
    assert [server.predict(request, adapter)["text"] for adapter in adapters] == [a["text"] for a in answers[:3]]


def test_a_stream_adds_up_to_the_prediction(server: Running, adapters: list[Path]) -> None:
    request = {"prompt": PROMPT, "max_new_tokens": 40, "temperature": 0.7, "seed": 5, "stop": ["no such text"]}
    chunks = asyncio.run(collect(server, request, adapters[0]))
    assert [chunk["sequence"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert len(chunks) > 2
    prediction = chunks[-1]["prediction"]
    assert "".join(chunk["text"] for chunk in chunks) == prediction["text"]
    assert prediction["text"] == server.predict(request, adapters[0])["text"]
    assert all("prediction" not in chunk for chunk in chunks[:-1])


def test_the_wire_is_server_sent_events(server: Running) -> None:
    answer = server.post({"prompt": PROMPT, "max_new_tokens": 3})
    assert answer.headers["content-type"] == "text/event-stream"
    events = answer.text.removesuffix("\n\n").split("\n\n")
    assert all(event.startswith("data: {") for event in events)
    assert json.loads(events[-1].removeprefix("data: "))["prediction"]["completion_tokens"] <= 3


@pytest.mark.parametrize(
    ("body", "status", "code", "field"),
    [
        ({"prompt": "a" * 126, "max_new_tokens": 3}, 400, "PROMPT_TOO_LONG", "prompt"),
        ({"prompt": "x", "temperature": float("nan")}, 400, "INVALID", "temperature"),
        ({"prompt": "x", "stop": ["a"] * 10_000}, 400, "INVALID", "stop"),
        ({"prompt": "x", "max_new_tokens": 201}, 400, "INVALID", "max_new_tokens"),
        ({"prompt": "\ud800"}, 400, "INVALID", "prompt"),
        ({}, 400, "INVALID", "prompt"),
        ({"prompt": "a" * 1_000_001}, 413, "BODY_TOO_LARGE", None),
        ({"prompt": "x", "ticket": None}, 401, "TICKET_REFUSED", None),
        ({"prompt": "x", "ticket": "a.b.c"}, 401, "TICKET_REFUSED", None),
    ],
)
def test_refusals_are_json(server: Running, body: dict[str, Any], status: int, code: str, field: str | None) -> None:
    answer = server.post(body)
    assert answer.status_code == status
    error = answer.json()
    assert (error["code"], error["field"]) == (code, field)
    assert "a" * 200 not in error["message"]


def test_bodies_that_are_no_json_object(server: Running) -> None:
    for content in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"):
        answer = httpx.post(f"{server.url}/generate", content=content, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID")
    assert httpx.get(f"{server.url}/generate", trust_env=False).status_code == 405
    assert httpx.get(f"{server.url}/metrics", trust_env=False).status_code == 404


def test_tickets_for_what_is_not_there(server: Running, adapters: list[Path]) -> None:
    request = {"prompt": "x", "max_new_tokens": 1}
    for changes, code in (
        ({"base": "another"}, "TICKET_REFUSED"),
        ({"adapter_key": "t/org-1/adapters/gone", "adapter_digest": "f" * 64}, "ADAPTER_NOT_FOUND"),
        ({"adapter_digest": "../../etc"}, "ADAPTER_NOT_FOUND"),
        ({"adapter_digest": "f" * 64}, "ADAPTER_DIGEST_MISMATCH"),
    ):
        with pytest.raises(InferenceError) as refusal:
            server.predict(request, adapters[0], **changes)
        assert refusal.value.code == code
    expired = issue(Ticket("org-1", "tiny", 10), "another installation's secret, as long")
    with pytest.raises(InferenceError) as refusal:
        client.predict(server.url, expired, request, timeout_s=5)
    assert refusal.value.code == "TICKET_REFUSED"


def test_a_spoilt_copy_in_the_cache_is_fetched_anew(adapters: list[Path], tmp_path: Path) -> None:
    fetched: list[str] = []

    def open_read(key: str) -> Any:
        fetched.append(key)
        return (adapters[0] / Path(key).name).open("rb")

    fetch = cached_fetch(open_read, tmp_path / "cache")
    digest = adapter_digest(adapters[0])
    folder = fetch("key", digest)
    assert fetch("key", digest) == folder
    assert len(fetched) == 2
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert adapter_digest(fetch("key", digest)) == digest
    assert len(fetched) == 4
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [digest], "nothing is left beside it"


@pytest.mark.usefixtures("endless")
def test_a_client_that_leaves_frees_its_place(server: Running) -> None:
    async def leave_early() -> int:
        received = 0
        async with aclosing(client.stream(server.url, server.ticket(), LONG)) as chunks:
            async for _ in chunks:
                received += 1
                if received == 2:
                    break
        return received

    for _ in range(3):
        assert asyncio.run(leave_early()) == 2
        eventually(lambda: server.load == (0, 0), timeout_s=1)


@pytest.mark.usefixtures("endless")
def test_a_full_queue_answers_with_retry_after(server: Running) -> None:
    """Two active, two waiting; the fifth is told to come back, and one that waits can leave."""

    async def crowd() -> None:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:

            def ask() -> Any:
                return http.post(f"{server.url}/generate", content=json.dumps({"ticket": server.ticket(), **LONG}))

            asked = [asyncio.create_task(ask()) for _ in range(4)]
            async with asyncio.timeout(10):
                while server.load != (2, 2):
                    await asyncio.sleep(0.01)
            refused = await ask()
            assert refused.status_code == 503
            assert refused.json()["code"] == "QUEUE_FULL"
            assert refused.headers["retry-after"] == "2"
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    asyncio.run(crowd())
    eventually(lambda: server.load == (0, 0), timeout_s=2)


def test_a_failure_on_the_way_is_an_event(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server.backend._scheduler is not None
    engine = server.backend._scheduler._engine
    advance = engine.advance

    def breaks(sequences: Any) -> Any:
        if any(sequence.completion_tokens == 10 for sequence in sequences):
            raise ZeroDivisionError
        return advance(sequences)

    monkeypatch.setattr(engine, "_end_tokens", frozenset())
    monkeypatch.setattr(engine, "advance", breaks)
    with pytest.raises(InferenceError) as failure:
        asyncio.run(collect(server, LONG))
    assert failure.value.code == "INTERNAL"
    assert server.predict({"prompt": "x", "max_new_tokens": 2})["finish_reason"] == "LENGTH", "the next one is served"


def test_score_is_the_sum_of_its_parts(server: Running, adapters: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": "def f():\n", "completion": f"    return {number}\n"} for number in range(7)]

    def scored() -> dict[str, Any]:
        return client.score(server.url, server.ticket(adapters[0]), iter(rows), max_tokens=64, timeout_s=30)

    whole = scored()
    monkeypatch.setattr(client, "SCORE_ROWS", 3)
    assert scored() == whole
    assert len(whole["rows"]) == 7
    assert whole["loss"] == pytest.approx(sum(row["loss_sum"] for row in whole["rows"]) / whole["tokens"])
    assert whole["adapter_digest"] == adapter_digest(adapters[0])
    for body, field in (
        ({"rows": []}, "rows"),
        ({"rows": [{}] * 1001}, "rows"),
        ({"rows": [7]}, "rows[0]"),
        ({"rows": [{"text": 7}]}, "rows[0].text"),
        ({"rows": [{}, {"messages": "{"}]}, "rows[1].messages"),
        ({"rows": [{"messages": [{"role": "user"}]}]}, "rows[0].messages[0].content"),
        ({"rows": [{"text": "x"}], "max_tokens": "many"}, "max_tokens"),
    ):
        answer = server.post(body, "/score")
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (400, "INVALID", field)


def test_a_server_that_is_away_is_typed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        free = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(InferenceError) as failure:
        client.predict(free, "ticket", {"prompt": "x"}, timeout_s=5)
    assert (failure.value.code, failure.value.retry_after) == ("INFERENCE_UNAVAILABLE", 5)
    with pytest.raises(InferenceError) as failure:
        client.score(free, "ticket", [{"text": "x"}], 10, timeout_s=5)
    assert failure.value.code == "INFERENCE_UNAVAILABLE"

    async def one() -> None:
        async for _ in client.stream(free, "ticket", {"prompt": "x"}):
            pass

    with pytest.raises(InferenceError) as failure:
        asyncio.run(one())
    assert failure.value.code == "INFERENCE_UNAVAILABLE"


@pytest.mark.usefixtures("endless")
def test_a_server_that_is_too_slow_is_typed(server: Running) -> None:
    with pytest.raises(InferenceError) as failure:
        client.predict(server.url, server.ticket(), LONG, timeout_s=0.3)
    assert failure.value.code == "INFERENCE_TIMEOUT"
    eventually(lambda: server.load == (0, 0), timeout_s=1)


# ------------------------------------------------------------------------------------------------ admission, health, status


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
