"""The demo's client watches a job through dropped connections, against a real websocket server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from platform_site.demo.client import ApiError, Client, Stalled

SESSION = {"accessToken": "a", "refreshToken": "r", "expiresAt": "2999-01-01T00:00:00+00:00"}
LOG = [
    {"__typename": "StatusChanged", "sequence": 1, "status": "RUNNING"},
    {"__typename": "LogLine", "sequence": 2, "text": "half way"},
    {"__typename": "StatusChanged", "sequence": 3, "status": "SUCCEEDED"},
]


@contextmanager
def platform(answer: Any) -> Iterator[tuple[Client, list[Any]]]:
    """A client, and what its subscriptions asked for; `answer(socket, variables)` says what they get."""
    asked: list[Any] = []

    def handle(socket: ServerConnection) -> None:
        init = json.loads(socket.recv())
        assert init == {"type": "connection_init", "payload": {"authorization": "Bearer a"}}
        socket.send(json.dumps({"type": "connection_ack"}))
        subscribe = json.loads(socket.recv())
        asked.append(subscribe["payload"]["variables"])
        answer(socket, subscribe["payload"]["variables"])

    with serve(handle, "127.0.0.1", 0, subprotocols=["graphql-transport-ws"]) as server:  # type: ignore[list-item]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        client = Client(f"http://127.0.0.1:{server.socket.getsockname()[1]}")
        client.use(SESSION)
        try:
            yield client, asked
        finally:
            client.close()
            server.shutdown()
            thread.join()


def send(socket: ServerConnection, kind: str, payload: Any = None) -> None:
    socket.send(json.dumps({"type": kind, "id": "1", "payload": payload}))


def test_a_dropped_connection_goes_on_after_the_last_event() -> None:
    def two_events_and_gone(socket: ServerConnection, variables: dict[str, Any]) -> None:
        send(socket, "ping")
        assert json.loads(socket.recv()) == {"type": "pong"}
        batch = [event for event in LOG if event["sequence"] > variables["after"]][:2]  # type: ignore[operator]
        send(socket, "next", {"data": {"events": batch}})
        socket.close(1011)

    with platform(two_events_and_gone) as (client, asked):
        assert list(client.follow("subscription", "job", silence_s=10)) == LOG
    assert asked == [{"id": "job", "after": 0}, {"id": "job", "after": 2}]


def test_a_job_that_says_nothing_is_given_up() -> None:
    with platform(lambda socket, variables: socket.close(1011)) as (client, asked), pytest.raises(Stalled):
        list(client.follow("subscription", "job", silence_s=0.1))
    assert asked


def test_a_refused_subscription_is_an_error() -> None:
    error = [{"message": "There is no such thing.", "extensions": {"code": "NOT_FOUND"}}]
    with (
        platform(lambda socket, variables: send(socket, "error", error)) as (client, _),
        pytest.raises(ApiError, match="NOT_FOUND"),
    ):
        list(client.follow("subscription", "job", silence_s=10))
