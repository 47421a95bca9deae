"""Subscriptions over a real socket: graphql-transport-ws, and server-sent events for clients behind proxies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.db import OperationalError
from strawberry import relay
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from common.events import Event
from common.jobs import JobStatus
from common.tenancy import operator
from common.threads import in_thread
from datasets.models import DatasetVersion
from platform_site import sockets
from tests.cast import Person, make_person
from tests.rows import global_id, make_run, make_version
from tests.sockets import code_at_the_end, greet, hear, socket, tell
from tests.web import serving
from training.models import TrainingRun

EVENTS = """
subscription ($id: ID!, $after: Int! = 0) { trainingRunEvents(id: $id, after: $after) {
  __typename sequence
  ... on StatusChanged { status reason }
  ... on StepLogged { step totalSteps loss learningRate gradNorm }
  ... on CheckpointSaved { sizeBytes sha256 }
  ... on LogLine { level text }
} }
"""
VERSION_EVENTS = "subscription ($id: ID!) { datasetVersionEvents(id: $id) { __typename sequence } }"
NOT_FOUND = {"message": "There is no such object.", "extensions": {"code": "NOT_FOUND"}}
UNAUTHENTICATED = {
    "message": "Sign in first: send `Authorization: Bearer <access token>`.",
    "extensions": {"code": "UNAUTHENTICATED"},
}
STEP = {"step": 1, "total_steps": 6, "loss": None, "learning_rate": 0.002, "grad_norm": 0.5, "tokens_per_second": 7.0}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def run(ada: Person) -> TrainingRun:
    return make_run(ada)


def log(run: TrainingRun, *events: Event, status: JobStatus | None = None) -> None:
    with operator():
        jobs = TrainingRun.objects.filter(pk=run.pk)
        jobs.advance(list(events))
        if status is not None:
            jobs.move(status)


def lines(count: int) -> list[Event]:
    return [Event("LogLine", {"level": "INFO", "text": "x"})] * count


async def subscribe(opened: ClientConnection, document: str, **variables: Any) -> None:
    await tell(opened, id="1", type="subscribe", payload={"query": document, "variables": variables})


async def answers(opened: ClientConnection) -> list[dict[str, Any]]:
    """What comes until the operation completes, or is refused."""
    heard = []
    while (message := await hear(opened))["type"] != "complete":
        heard.append(message["payload"])
        if message["type"] == "error":
            break
    return heard


def flat(payloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for payload in payloads for event in payload["data"]["trainingRunEvents"]]


def ask(url: str, token: str | None, document: str, **variables: Any) -> list[dict[str, Any]]:
    """One subscription over a fresh websocket, to its end."""

    async def talk() -> list[dict[str, Any]]:
        async with socket(url) as opened:
            await greet(opened, token)
            await subscribe(opened, document, **variables)
            return await answers(opened)

    return asyncio.run(talk())


def stream(url: str, token: str | None, document: str, **variables: Any) -> list[dict[str, Any]]:
    """The same by server-sent events."""
    headers = {"Accept": "text/event-stream"} | ({"Authorization": f"Bearer {token}"} if token else {})
    headers["Content-Type"] = "application/json"
    body = json.dumps({"query": document, "variables": variables})
    with httpx.stream(
        "POST", f"{url}/graphql/stream", content=body, headers=headers, timeout=10, trust_env=False
    ) as answer:
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, "text/event-stream")
        events, name = [], ""
        for line in answer.iter_lines():
            if line.startswith("event:"):
                name = line.removeprefix("event:").strip()
            elif line.startswith("data:") and name == "next":
                events.append(json.loads(line.removeprefix("data:")))
        assert name == "complete"
        return events


def expected() -> list[dict[str, Any]]:
    return [
        {"__typename": "StatusChanged", "sequence": 1, "status": "RUNNING", "reason": None},
        {
            "__typename": "StepLogged",
            "sequence": 2,
            "step": 1,
            "totalSteps": 6,
            "loss": None,
            "learningRate": 0.002,
            "gradNorm": 0.5,
        },
        {"__typename": "CheckpointSaved", "sequence": 3, "sizeBytes": 2**40, "sha256": "ab"},
        {"__typename": "LogLine", "sequence": 4, "level": "WARNING", "text": "→ 🙂"},
        {"__typename": "StatusChanged", "sequence": 5, "status": "SUCCEEDED", "reason": None},
    ]


@pytest.mark.parametrize("way", [ask, stream])
def test_an_ended_runs_events_come_with_their_fields_and_the_stream_completes(
    url: str, ada: Person, run: TrainingRun, way: Any
) -> None:
    with operator():
        TrainingRun.objects.filter(pk=run.pk).move(JobStatus.RUNNING)
    log(
        run,
        Event("StepLogged", STEP),
        Event("CheckpointSaved", {"step": 1, "size_bytes": 2**40, "sha256": "ab"}),
        Event("LogLine", {"level": "WARNING", "text": "→ 🙂"}),
        status=JobStatus.SUCCEEDED,
    )
    for after in (0, 3, 5):
        assert flat(way(url, ada.token, EVENTS, id=global_id(run), after=after)) == expected()[after:]
    assert flat(way(url, ada.token, EVENTS, id=global_id(run), after=-7)) == expected()


def test_live_events_arrive_and_a_reconnect_loses_and_repeats_nothing(url: str, ada: Person, run: TrainingRun) -> None:
    async def scenario() -> list[int]:
        seen: list[int] = []
        for _ in range(4):
            async with socket(url) as opened:
                await greet(opened, ada.token)
                await subscribe(opened, EVENTS, id=global_id(run), after=seen[-1] if seen else 0)
                writing = asyncio.create_task(write())
                until = (seen[-1] if seen else 0) + 10
                while not seen or seen[-1] < until:
                    message = await hear(opened)
                    seen += [event["sequence"] for event in message["payload"]["data"]["trainingRunEvents"]]
                await writing
        await in_thread(lambda: log(run, status=JobStatus.FAILED))
        return seen + [event["sequence"] for event in flat(await asyncio.to_thread(rest, seen[-1]))]

    async def write() -> None:
        for _ in range(5):
            await in_thread(lambda: log(run, *lines(2)))
            await asyncio.sleep(0.02)

    def rest(after: int) -> list[dict[str, Any]]:
        return ask(url, ada.token, EVENTS, id=global_id(run), after=after)

    assert asyncio.run(scenario()) == list(range(1, 42))


def test_versions_have_events_too(url: str, ada: Person) -> None:
    version = make_version(ada, status="QUEUED")
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).move(JobStatus.CANCELLED)
    event = {"__typename": "StatusChanged", "sequence": 1}
    assert ask(url, ada.token, VERSION_EVENTS, id=global_id(version)) == [{"data": {"datasetVersionEvents": [event]}}]


def test_what_is_not_there_for_the_caller_is_not_found_all_alike(url: str, ada: Person, run: TrainingRun) -> None:
    charlie = make_person("Charlie")
    ids = [
        global_id(run),  # hers
        relay.to_base64("TrainingRun", uuid4()),
        relay.to_base64("TrainingRun", "x"),
        relay.to_base64("DatasetVersion", run.pk),
        "",
        "x",
        "\x00",
        "\ud800",
        str(run.pk),
    ]
    for way in (ask, stream):
        heard = {json.dumps(way(url, charlie.token, EVENTS, id=one), sort_keys=True) for one in ids}
        assert len(heard) == 1
        (payload,) = json.loads(heard.pop())
        (error,) = payload["errors"] if isinstance(payload, dict) else payload
        assert {key: error[key] for key in ("message", "extensions")} == NOT_FOUND


def test_nobody_gets_nothing(url: str, run: TrainingRun) -> None:
    (payload,) = stream(url, None, EVENTS, id=global_id(run))
    (error,) = payload["errors"]
    assert {key: error[key] for key in ("message", "extensions")} == UNAUTHENTICATED


@pytest.mark.parametrize("params", [None, {}, {"authorization": ""}])
def test_a_socket_of_nobodys_is_closed_unacknowledged(url: str, params: Any) -> None:
    async def talk() -> int | None:
        async with socket(url) as opened:
            await tell(opened, **INIT, payload=params)
            with pytest.raises(ConnectionClosed):
                await hear(opened)
            return opened.close_code

    assert asyncio.run(talk()) == 4403


def signed_in() -> dict[str, Any]:
    return INIT | {"payload": {"authorization": f"Bearer {make_person(uuid4().hex).token}"}}


def close_code(url: str, *messages: Any, **how: Any) -> int:
    """The code that the server closes the socket with after these messages."""
    said = [signed_in() if message == INIT else message for message in messages]

    async def talk() -> int:
        async with socket(url, **how) as opened:
            for message in said:
                await opened.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
            return await code_at_the_end(opened)

    return asyncio.run(talk())


INIT = {"type": "connection_init"}
SUBSCRIBE = {"id": "1", "type": "subscribe", "payload": {"query": EVENTS, "variables": {"id": "x"}}}


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([{"type": "connection_init", "payload": {"authorization": "Bearer garbage"}}], 4403),
        ([{"type": "connection_init", "payload": {"authorization": "Basic x"}}], 4403),
        ([SUBSCRIBE], 4401),
        ([INIT, INIT], 4429),
        (["{"], 4400),
        (["[]"], 4400),
        (["7"], 4400),
        (["[" * 100_000], 4400),
        ([{"type": "start"}], 4400),
        ([{}], 4400),
        ([b"\x00"], 4400),
        ([{"type": "connection_init", "payload": 7}], 4400),
        ([INIT, {"id": "1", "type": "subscribe"}], 4400),
        ([INIT, {"id": "1", "type": "subscribe", "payload": 7}], 4400),
        ([INIT, {"id": "1", "type": "subscribe", "payload": None}], 4400),
        ([INIT, {"id": [], "type": "subscribe", "payload": {"query": EVENTS}}], 4400),
        ([INIT, {"id": "1", "type": "subscribe", "payload": {"query": 7}}], 4400),
        ([INIT, {"id": "1", "type": "subscribe", "payload": {"query": EVENTS, "variables": []}}], 4400),
        ([INIT, {"id": "1", "type": "subscribe", "payload": {"query": "{"}}], 4400),
    ],
)
def test_a_client_that_does_not_keep_to_the_protocol_is_told_by_the_code(
    url: str, messages: list[Any], code: int
) -> None:
    assert close_code(url, *messages) == code


def test_a_second_operation_of_the_same_id_is_refused(url: str, ada: Person, run: TrainingRun) -> None:
    init = {"type": "connection_init", "payload": {"authorization": f"Bearer {ada.token}"}}
    subscription = {"id": "1", "type": "subscribe", "payload": {"query": EVENTS, "variables": {"id": global_id(run)}}}

    async def talk() -> int:
        async with socket(url) as opened:
            await tell(opened, **init)
            assert await hear(opened) == {"type": "connection_ack"}
            await tell(opened, **subscription)
            await tell(opened, **subscription)
            return await code_at_the_end(opened)

    assert asyncio.run(talk()) == 4409


@pytest.mark.parametrize(
    ("broken", "code"),
    [(OperationalError("server closed the connection unexpectedly"), 1013), (RuntimeError("a bug of ours"), 1011)],
)
def test_a_socket_whose_handler_breaks_is_closed_and_the_code_says_whether_to_come_again(
    url: str, ada: Person, monkeypatch: pytest.MonkeyPatch, broken: Exception, code: int
) -> None:
    def break_down(authorization: object) -> None:
        raise broken

    monkeypatch.setattr(sockets, "principal_from", break_down)
    assert close_code(url, INIT) == code


def test_the_legacy_protocol_other_origins_and_other_paths_are_refused(url: str) -> None:
    assert close_code(url, protocol="graphql-ws") == 4406
    with pytest.raises(InvalidStatus) as refused:
        close_code(url, origin="https://elsewhere.example")
    assert refused.value.response.status_code == 403

    async def elsewhere() -> None:
        async with connect(url.replace("http://", "ws://") + "/elsewhere", proxy=None):
            pass

    with pytest.raises(InvalidStatus):
        asyncio.run(elsewhere())


@pytest.mark.parametrize("way", [ask, stream])
@pytest.mark.parametrize(
    "document", ["{ me { email } }", 'mutation { login(input: {email: "", password: ""}) { __typename } }']
)
def test_queries_and_mutations_do_not_come_this_way(url: str, ada: Person, way: Any, document: str) -> None:
    (payload,) = way(url, ada.token, document)
    (error,) = payload["errors"] if isinstance(payload, dict) else payload
    assert error["message"] == "This connection carries subscriptions; send queries and mutations by HTTP POST."


def test_a_stream_with_a_token_that_is_not_valid_is_a_401(url: str) -> None:
    answer = httpx.post(
        f"{url}/graphql/stream",
        json={"query": EVENTS, "variables": {"id": "x"}},
        headers={"Authorization": "Bearer x", "Accept": "text/event-stream"},
        trust_env=False,
    )
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]) == (401, {"code": "UNAUTHENTICATED"})


@pytest.mark.parametrize("path", ["/graphql", "/graphql/stream"])
def test_a_body_over_two_megabytes_is_refused(url: str, ada: Person, path: str) -> None:
    headers = {
        "Authorization": f"Bearer {ada.token}",
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
    }
    for content in (b" " * 2_000_001, iter([b" " * 1_000_001] * 2)):
        answer = httpx.post(f"{url}{path}", content=content, headers=headers, trust_env=False)
        assert answer.status_code == 413
        assert answer.json()["errors"][0]["extensions"] == {"code": "BODY_TOO_LARGE"}


def test_queries_over_http_work_beside_them(url: str, ada: Person) -> None:
    headers = {"Authorization": f"Bearer {ada.token}"}
    body = b'{"query": "{ me { email } }"}'
    for content in (body, iter([body[:5], body[5:]])):  # the second comes in chunks, without a length
        answer = httpx.post(
            f"{url}/graphql",
            content=content,
            headers={**headers, "Content-Type": "application/json"},
            trust_env=False,
        )
        assert (answer.status_code, answer.json()) == (200, {"data": {"me": {"email": "ada@example.com"}}})
