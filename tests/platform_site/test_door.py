"""Whoever is over their rate is refused at the door: the same answer as ever, in its turn, on a connection that goes on."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from django.db import connection as database
from django.db import transaction

from platform_site import door, protocol
from platform_site.door import Door
from tests.cast import make_person
from tests.web import serving

BODY = json.dumps({"query": "{ __typename }"}).encode()
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each call that came to the door, whether it was refused there."""
    asked: list[bool] = []
    real = Door._refused

    def noted(self: Door) -> Any:
        answer = real(self)
        asked.append(answer is not None)
        return answer

    monkeypatch.setattr(Door, "_refused", noted)
    return asked


@pytest.fixture
def site(settings: Any) -> Iterator[str]:
    settings.REQUESTS_PER_MINUTE = 2
    settings.CORS_ORIGINS = ["https://app.example.com"]
    with serving() as url:
        yield url


@pytest.fixture
def token(site: str) -> str:
    """Of somebody who is over their rate for half a minute."""
    token = make_person(f"ada-{uuid4().hex}").token
    with httpx.Client(base_url=site, headers={"Authorization": f"Bearer {token}"}, trust_env=False) as client:
        assert [client.post("/graphql", content=BODY, headers=JSON).status_code for _ in range(2)] == [200, 200]
    return token


JSON = {"Content-Type": "application/json"}


def call(token: str, *more: str, length: int = len(BODY)) -> bytes:
    lines = ["POST /graphql HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", *more]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode()


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def answers(connection: socket.socket, count: int) -> list[tuple[int, dict[str, str], bytes]]:
    """(status, headers, body) of so many, one after the other."""
    found = []
    with connection.makefile("rb") as file:
        for _ in range(count):
            status = int(file.readline().split()[1])
            headers = {}
            while (line := file.readline()) != b"\r\n":
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            found.append((status, headers, file.read(int(headers["content-length"]))))
    return found


def test_the_refusal_is_the_one_that_asgi_would_give(site: str, token: str, refused: list[bool]) -> None:
    sent = {"Authorization": f"Bearer {token}", "Origin": "https://app.example.com"} | JSON
    asked = [httpx.post(f"{site}/graphql{query}", content=BODY, headers=sent, trust_env=False) for query in ("", "?")]
    assert refused[-2:] == [True, False]  # an address with a question mark is not looked at
    at_the_door, within = asked
    assert at_the_door.status_code == within.status_code == 429
    of_a_moment = ("date", "ratelimit-reset", "retry-after")
    first, second = ({k: v for k, v in each.headers.items() if k not in of_a_moment} for each in asked)
    assert first == second
    assert at_the_door.headers["access-control-allow-origin"] == "https://app.example.com"
    assert set(of_a_moment) <= set(at_the_door.headers)
    errors = [each.json()["errors"][0] for each in asked]
    assert [error["extensions"].keys() for error in errors] == [errors[0]["extensions"].keys()] * 2
    assert errors[0]["extensions"]["code"] == "QUOTA_EXCEEDED"


def test_calls_at_v1_are_refused_there_too_in_their_own_shape(site: str, token: str, refused: list[bool]) -> None:
    body = {"model": "platform/python-small", "prompt": "def"}
    sent = {"Authorization": f"Bearer {token}", "Origin": "https://app.example.com"}
    asked = [
        httpx.post(f"{site}/v1/completions{query}", json=body, headers=sent, trust_env=False) for query in ("", "?")
    ]
    assert refused[-2:] == [True, False]
    of_a_moment = ("date", "ratelimit-reset", "retry-after", "x-request-id", "content-length")
    first, second = ({k: v for k, v in each.headers.items() if k not in of_a_moment} for each in asked)
    assert first == second
    assert "access-control-allow-origin" not in first
    for each in asked:
        assert each.status_code == 429 and set(of_a_moment) <= set(each.headers)
        error = each.json()["error"]
        assert (error["type"], error["code"], error["limit"]) == ("requests", "rate_limit_exceeded", 2)
    assert asked[0].headers["x-request-id"] != asked[1].headers["x-request-id"]


def test_a_connection_goes_on_after_a_refusal_and_whoever_else_comes_by_it_is_served(
    site: str, token: str, refused: list[bool]
) -> None:
    ben = make_person(f"ben-{uuid4().hex}").token
    with closing(connect(site)) as connection:
        connection.sendall(call(token) + BODY)
        assert [status for status, *_ in answers(connection, 1)] == [429]
        for piece in (call(token), BODY[:5], BODY[5:]):
            connection.sendall(piece)
        assert [status for status, *_ in answers(connection, 1)] == [429]
        connection.sendall(call(ben) + BODY)
        ((status, _, body),) = answers(connection, 1)
    assert (status, json.loads(body)) == (200, {"data": {"__typename": "Query"}})
    assert refused[-3:] == [True, True, False]


def test_answers_come_in_the_order_of_their_requests(site: str, token: str, refused: list[bool]) -> None:
    """Sent at once: the first one is under way when the refusal of the second is known."""
    ben = make_person(f"ben-{uuid4().hex}").token
    with closing(connect(site)) as connection:
        connection.sendall((call(ben) + BODY) + (call(token) + BODY) * 2 + call(ben) + BODY)
        assert [status for status, *_ in answers(connection, 4)] == [200, 429, 429, 200]
    assert refused[-4:] == [False] * 4
    with closing(connect(site)) as connection:
        connection.sendall((call(token) + BODY) * 3)
        assert [status for status, *_ in answers(connection, 3)] == [429] * 3
    assert refused[-3:] == [True] * 3


def test_whoever_waits_to_be_told_to_go_on_is_refused_as_ever(site: str, token: str, refused: list[bool]) -> None:
    with closing(connect(site)) as connection:
        connection.sendall(call(token, "Expect: 100-continue"))
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 100 ")
        connection.sendall(BODY)
        assert [status for status, *_ in answers(connection, 1)] == [429]
    with closing(connect(site)) as connection:
        connection.sendall(call(token, "Connection: close") + BODY)
        ((status, headers, _),) = answers(connection, 1)
        assert (status, headers["connection"]) == (429, "close")
        assert connection.recv(1) == b""
    assert refused[-2:] == [False, False]


def test_a_refused_body_that_does_not_come_is_not_waited_for(
    site: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 1.0)
    with closing(connect(site)) as connection:
        connection.sendall(call(token) + BODY[:5])
        begun = time.monotonic()
        assert connection.recv(1) == b""  # the end, and no answer before the body was here
        assert time.monotonic() - begun < 10


def test_no_more_of_a_refused_body_is_taken_than_of_any_other(site: str, token: str, refused: list[bool]) -> None:
    with closing(connect(site)) as connection:
        connection.sendall(call(token, length=10**9) + BODY)
        ((status, headers, _),) = answers(connection, 1)
        assert (status, headers["connection"], refused[-1]) == (413, "close", False)
    head = call(token, "Transfer-Encoding: chunked").replace(f"Content-Length: {len(BODY)}\r\n".encode(), b"")
    with closing(connect(site)) as connection:
        connection.sendall(head)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            send_chunks(connection, 600)  # 40 MB, what the kernel holds of it included
    assert refused[-1] is True


def send_chunks(connection: socket.socket, count: int) -> None:
    for _ in range(count):
        connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")


def test_what_comes_with_a_refusal_is_not_cut_off_by_what_ends_idle_connections(
    site: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvicorn's patience with an idle connection begins where the refusal ends."""
    ben, patience_s = make_person(f"ben-{uuid4().hex}").token, 0.2
    real = Door.__init__

    def made(self: Door, *given: Any, **named: Any) -> None:
        real(self, *given, **named)
        self.timeout_keep_alive = patience_s  # type: ignore[assignment]

    monkeypatch.setattr(Door, "__init__", made)
    with closing(connect(site)) as connection, nobody_is_told_apart(4 * patience_s):
        connection.sendall(call(token) + BODY + call(ben) + BODY)
        assert [status for status, *_ in answers(connection, 2)] == [429, 200]


@contextmanager
def nobody_is_told_apart(seconds: float) -> Iterator[None]:
    """Requests that are not refused at the door take so long."""
    locked = threading.Event()

    def lock() -> None:
        try:
            with transaction.atomic(), database.cursor() as cursor:
                cursor.execute("LOCK TABLE accounts_membership IN ACCESS EXCLUSIVE MODE")
                locked.set()
                time.sleep(seconds)
        finally:
            database.close()

    thread = threading.Thread(target=lock)
    thread.start()
    locked.wait(10)
    yield
    thread.join()


@pytest.mark.parametrize("begun", [b"\r\n", b"POST /graphql HT"])
def test_a_connection_on_which_there_were_only_refusals_does_not_wait_for_ever(
    site: str, token: str, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 1.0)
    with closing(connect(site)) as connection:
        connection.sendall(call(token) + BODY)
        assert [status for status, *_ in answers(connection, 1)] == [429]
        connection.sendall(begun)
        started = time.monotonic()
        assert connection.recv(1) == b""
        assert time.monotonic() - started < 4  # and not uvicorn's five seconds


def test_a_socket_that_comes_after_calls_stays_open(site: str, token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 0.5)
    ben = make_person(f"ben-{uuid4().hex}").token
    upgrade = (
        b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    )
    for before in (token, ben):
        with closing(connect(site)) as connection:
            connection.sendall(call(before) + BODY)
            answers(connection, 1)
            connection.sendall(upgrade)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 101 ")
            connection.settimeout(1.5)
            with pytest.raises(TimeoutError):
                connection.recv(1)


def test_old_http_is_refused_as_ever(site: str, token: str, refused: list[bool]) -> None:
    with closing(connect(site)) as connection:
        connection.sendall((call(token, "Connection: keep-alive") + BODY).replace(b"HTTP/1.1", b"HTTP/1.0"))
        ((status, headers, _),) = answers(connection, 1)
        assert (status, headers["connection"], refused[-1]) == (429, "close", False)


def test_whoever_leaves_refusals_unread_is_not_written_more(
    site: str, token: str, monkeypatch: pytest.MonkeyPatch, refused: list[bool]
) -> None:
    monkeypatch.setattr(door, "UNREAD_BYTES", -1)
    with closing(connect(site)) as connection:
        connection.sendall(call(token) + BODY)
        assert [status for status, *_ in answers(connection, 1)] == [429]
    assert refused[-1] is False


def test_strangers_are_not_refused_at_the_door(site: str, refused: list[bool]) -> None:
    statuses = [
        httpx.post(f"{site}/graphql", content=BODY, headers=JSON, trust_env=False).status_code for _ in range(4)
    ]
    assert statuses[-1] == 429 and not any(refused)
