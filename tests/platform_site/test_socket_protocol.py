"""The graphql-transport-ws protocol over a real socket: its close codes, and the limits of one connection.

Each test that is ported names the one in tests/server.test.ts of graphql-ws, the protocol's home, that it comes from.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from platform_site import sockets
from tests.cast import Person, make_person
from tests.rows import global_id, make_run
from tests.sockets import code_at_the_end, greet, hear, socket, tell
from tests.web import serving
from training.models import TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

EVENTS = "subscription ($id: ID!) { trainingRunEvents(id: $id) { sequence } }"
INIT = {"type": "connection_init"}


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


def subscription(run: TrainingRun | None, id: str = "1") -> dict[str, Any]:
    variables = {"id": global_id(run) if run else "x"}
    return {"id": id, "type": "subscribe", "payload": {"query": EVENTS, "variables": variables}}


def signed_in() -> dict[str, Any]:
    return INIT | {"payload": {"authorization": f"Bearer {make_person(uuid4().hex).token}"}}


def closed(url: str, *messages: Any, **how: Any) -> tuple[int, str | None]:
    """The code and the reason that the server closes the socket with after these messages."""
    said = [signed_in() if message == INIT else message for message in messages]

    async def talk() -> tuple[int, str | None]:
        async with socket(url, **how) as opened:
            for message in said:
                await opened.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
            return await code_at_the_end(opened), opened.close_reason

    return asyncio.run(talk())


async def silent(opened: ClientConnection) -> None:
    """Everything that was sent before has been answered, and the socket is open: a ping comes back, and nothing else."""
    await tell(opened, type="ping")
    assert await hear(opened) == {"type": "pong"}


# ------------------------------------------------------------------------------------------------ Connect


def test_4408_no_init_in_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect > should close the socket after the `connectionInitWaitTimeout` has passed without having received a
    `ConnectionInit` message"""
    monkeypatch.setattr(sockets, "INIT_WITHIN_S", 0.2)
    assert closed(url) == (4408, "Connection initialisation timeout")


def test_an_init_that_is_looked_into_is_waited_for(url: str, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect > should not close the socket after the `connectionInitWaitTimeout` has passed but the callback is still
    resolving"""
    monkeypatch.setattr(sockets, "INIT_WITHIN_S", 0.2)

    async def talk() -> None:
        async with socket(url) as opened:
            await greet(opened, ada.token)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(opened.recv(), 0.6)
            await silent(opened)

    asyncio.run(talk())


@pytest.mark.parametrize("authorization", ["Bearer garbage", "Basic x", "Bearer "])
def test_4403_a_token_that_is_not_valid(url: str, authorization: str) -> None:
    """Connect > should refuse connection and close socket if returning `false`"""
    assert closed(url, INIT | {"payload": {"authorization": authorization}}) == (4403, "Forbidden")


def test_4429_a_second_init_at_once(url: str) -> None:
    """Connect > should close the socket if an additional `ConnectionInit` message is received while one is pending"""
    assert closed(url, INIT, INIT) == (4429, "Too many initialisation requests")


def test_4429_a_second_init_later(url: str, ada: Person) -> None:
    """Connect > should close the socket if more than one `ConnectionInit` message is received at any given time"""

    async def talk() -> int:
        async with socket(url) as opened:
            await greet(opened, ada.token)
            await tell(opened, **INIT)
            return await code_at_the_end(opened)

    assert asyncio.run(talk()) == 4429


@pytest.mark.parametrize("protocol", ["graphql-ws", "graphql-transport-wsgibberish", "json"])
def test_4406_another_subprotocol(url: str, protocol: str) -> None:
    """should omit the subprotocol from the response if there's no valid one offered by the client"""
    assert closed(url, protocol=protocol) == (4406, "Subprotocol not acceptable")


# ------------------------------------------------------------------------------------------------ Messages


@pytest.mark.parametrize(
    "messages",
    [
        ["{"],
        ["[]"],
        ["7"],
        ["\x00"],
        [{}],
        [{"type": "start"}],
        [{"type": "connection_ack"}],
        [INIT | {"payload": 7}],
        [INIT, {"type": "subscribe", "payload": {"query": EVENTS}}],
        [INIT, {"id": "1", "type": "subscribe"}],
        [INIT, {"id": 1, "type": "subscribe", "payload": {"query": EVENTS}}],
        [INIT, {"type": "complete"}],
    ],
    ids=json.dumps,
)
def test_4400_a_message_that_is_none_of_the_protocols(url: str, messages: list[Any]) -> None:
    """Message > should close the socket on invalid message"""
    code, reason = closed(url, *messages)
    assert (code, bool(reason)) == (4400, True)


def test_4400_binary(url: str) -> None:
    assert closed(url, b'{"type": "ping"}') == (4400, "WebSocket message type must be text")


def test_a_ping_is_answered_before_and_after_the_init_and_a_pong_is_not(url: str, ada: Person) -> None:
    """Ping/Pong > should respond with a pong to a ping; should not react to a pong"""

    async def talk() -> None:
        async with socket(url) as opened:
            await silent(opened)
            await greet(opened, ada.token)
            await tell(opened, type="pong")
            await silent(opened)

    asyncio.run(talk())


# ------------------------------------------------------------------------------------------------ Subscribe


def test_4401_a_subscription_before_the_acknowledgement(url: str) -> None:
    """Subscribe > should close the socket on request if connection is not acknowledged"""
    assert closed(url, subscription(None)) == (4401, "Unauthorized")


def test_4409_a_second_subscription_of_the_same_id(url: str, ada: Person, run: TrainingRun) -> None:
    """Subscribe > should close the socket on duplicate operation requests, even if one is still preparing"""
    init = INIT | {"payload": {"authorization": f"Bearer {ada.token}"}}
    again = subscription(run, id="not-unique")
    assert closed(url, init, again, again) == (4409, "Subscriber for not-unique already exists")


def test_an_id_is_free_again_once_it_is_complete_and_an_unknown_one_is_nobodys(
    url: str, ada: Person, run: TrainingRun
) -> None:
    """Subscribe > should stop dispatching messages after completing a subscription"""

    async def talk() -> None:
        async with socket(url) as opened:
            await greet(opened, ada.token)
            for _ in range(3):
                await tell(opened, **subscription(run))
                await tell(opened, id="1", type="complete")
            await tell(opened, id="nobody's", type="complete")
            await silent(opened)

    asyncio.run(talk())


def test_a_wrong_document_is_an_error_of_its_subscription_alone(url: str, ada: Person) -> None:
    """Subscribe > should execute the query and "error" out because of validation errors"""

    async def talk() -> None:
        async with socket(url) as opened:
            await greet(opened, ada.token)
            await tell(opened, id="1", type="subscribe", payload={"query": "subscription { nothing }"})
            message = await hear(opened)
            assert (message["id"], message["type"]) == ("1", "error")
            assert message["payload"][0]["message"] == "Cannot query field 'nothing' on type 'Subscription'."
            await silent(opened)

    asyncio.run(talk())


def test_a_client_that_terminates_leaves_nothing(url: str, ada: Person, run: TrainingRun) -> None:
    """4499, with which clients terminate a connection, is one more way to go."""

    async def talk() -> None:
        async with socket(url) as opened:
            await greet(opened, ada.token)
            await tell(opened, **subscription(run))
            await silent(opened)
            assert len(lapse_connections()) == 1
            await opened.close(4499, "Terminated")
        while lapse_connections():
            await asyncio.sleep(0.02)

    asyncio.run(asyncio.wait_for(talk(), 10))


def lapse_connections() -> set[Any]:
    return sockets.lapse._connections


# ------------------------------------------------------------------------------------------------ limits


def test_a_costly_subscription_is_refused_and_the_socket_stays(url: str, ada: Person) -> None:
    aliases = " ".join(f"a{number}: sequence" for number in range(51))

    async def talk() -> None:
        async with socket(url) as opened:
            await greet(opened, ada.token)
            for at, (document, code) in enumerate(
                [
                    (f'subscription {{ trainingRunEvents(id: "x") {{ {aliases} }} }}', "TOO_MANY_ALIASES"),
                    ("subscription { ...A } fragment A on Subscription { ...A }", "TOO_DEEP"),
                    ("subscription { x " + "y " * 3_000 + "}", "TOO_LONG"),
                ]
            ):
                await tell(opened, id=str(at), type="subscribe", payload={"query": document})
                message = await hear(opened)
                assert (message["id"], message["type"]) == (str(at), "error")
                assert [error["extensions"] for error in message["payload"]] == [{"code": code}]
            await silent(opened)

    asyncio.run(talk())


def test_a_socket_carries_so_many_subscriptions_and_another_once_one_has_ended(
    url: str, ada: Person, run: TrainingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "MAX_SUBSCRIPTIONS", 3)

    async def talk() -> None:
        async with socket(url) as opened:
            await greet(opened, ada.token)
            for name in "123":
                await tell(opened, **subscription(run, name))
            await silent(opened)
            await tell(opened, **subscription(run, "4"))
            message = await hear(opened)
            assert (message["id"], message["type"]) == ("4", "error")
            assert message["payload"][0]["extensions"] == {"code": "TOO_MANY_SUBSCRIPTIONS"}
            await tell(opened, id="2", type="complete")
            await tell(opened, **subscription(run, "4"))
            await silent(opened)

    asyncio.run(talk())


def test_1009_a_message_that_is_too_large(url: str) -> None:
    message = {"type": "ping", "payload": {"x": "x" * 1_000_000}}
    code, reason = closed(url, message)
    assert (code, reason) == (1009, "A message has at most 1,000,000 characters")


def test_1008_more_messages_than_are_answered(url: str, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "MAX_WAITING_MESSAGES", 0)
    assert closed(url, {"type": "ping"}) == (1008, "More messages than can be answered")


@pytest.mark.parametrize("is_greeted", [False, True])
def test_a_flood_of_pings_closes_the_socket_and_is_no_error_of_ours(
    ada: Person, caplog: pytest.LogCaptureFixture, is_greeted: bool
) -> None:
    async def talk(url: str) -> tuple[int, str | None]:
        async with socket(url) as opened:
            if is_greeted:
                await greet(opened, ada.token)
            with suppress(ConnectionClosed):
                for _ in range(20_000):
                    await opened.send('{"type":"ping"}')
                async for _ in opened:  # the pongs before it stand in the way of the close
                    pass
            return opened.close_code or 0, opened.close_reason

    with serving() as site:
        assert asyncio.run(talk(site)) == (1008, "More messages than can be answered")
    # the server has ended, and with it all that it had begun
    assert [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.ERROR] == []


# ------------------------------------------------------------------------------------------------ origins


def test_pages_of_the_allow_list_may_open_a_socket(url: str, ada: Person, settings: Any) -> None:
    settings.CORS_ORIGINS = ["https://app.example.com"]

    async def talk() -> None:
        async with socket(url, origin="https://app.example.com") as opened:
            await greet(opened, ada.token)

    asyncio.run(talk())
