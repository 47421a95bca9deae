"""The server over real HTTP, and the client that the web process reaches it with."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest

from inference import client
from inference.client import InferenceError
from inference.server.cache import cached_fetch
from inference.tickets import Ticket, issue
from tests.inference.served import LONG, PROMPT, Running, collect, eventually
from training.trainer.artifact import adapter_digest


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
