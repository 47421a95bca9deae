"""What strangers send, and what they leave unread, is bounded: each is a few kilobytes and some seconds of a process."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from platform_site import bodies, protocol
from platform_site.room import NoRoom, Room
from tests.web import serving, soon, web_process

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
BIG = 32 << 20
STALLED_S = 3.0


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Takes the whole body, and answers with so many bytes as the path says."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * int(scope["path"][1:])})


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", 1.0)
    monkeypatch.setattr(protocol, "STALLED_AFTER_S", 1.0)
    with serving(application) as url:
        yield url


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def answer_to(connection: socket.socket) -> bytes:
    """All that comes until the other side has ended the connection."""
    said = bytearray()
    try:
        while some := connection.recv(1 << 16):
            said += some
    except ConnectionResetError:
        pass
    return bytes(said)


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /1 HTTP/1.1\r\nHost: local",
        b"GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /2 HT",
        b"GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n",
    ],
)
def test_whoever_does_not_go_on_with_a_request_is_left(site: str, begun: bytes) -> None:
    with closing(connect(site)) as connection:
        connection.sendall(begun)
        started = time.monotonic()
        said = answer_to(connection)
        if begun.endswith(b"\r\n\r\n\r\n"):  # an empty line beside the request; a moment later it is one in between
            assert said.startswith(b"HTTP/1.1 200")
            return
        assert time.monotonic() - started < 4
        assert said.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")


def test_an_empty_line_between_two_requests_is_no_reason_to_wait_for_ever(site: str) -> None:
    with closing(connect(site)) as connection:
        connection.sendall(b"GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
        time.sleep(0.2)
        connection.sendall(b"\r\n")
        started = time.monotonic()
        answer_to(connection)
        assert time.monotonic() - started < 4


def test_a_client_that_takes_its_time_between_requests_and_for_bodies_is_served(site: str) -> None:
    with closing(connect(site)) as connection:
        for _ in range(2):
            connection.sendall(b"POST /3 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n")
            for _ in range(4):
                time.sleep(0.5)
                connection.sendall(b"x")
            assert b"xxx" in connection.recv(1 << 16)


@pytest.mark.parametrize(
    "head",
    [
        GET + b"X-Long: " + b"x" * (1 << 20),
        GET + b"".join(b"X-%06d: y\r\n" % number for number in range(100_000)),
        b"GET /" + b"1" * (1 << 20),
    ],
    ids=["one header", "many headers", "the address"],
)
def test_a_head_has_an_end(site: str, head: bytes) -> None:
    with closing(connect(site)) as connection:
        try:
            connection.sendall(head)
        except (BrokenPipeError, ConnectionResetError):
            return  # it did not wait for the end of it
        said = answer_to(connection)
        assert said == b"" or said.startswith(b"HTTP/1.1 431 ")


def test_what_follows_a_body_has_an_end_too(site: str) -> None:
    with closing(connect(site)) as connection:
        connection.sendall(b"POST /1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        try:
            for _ in range(1000):
                connection.sendall(b"X-Trailer: " + b"y" * 1000 + b"\r\n")
        except (BrokenPipeError, ConnectionResetError):
            return
        assert b"HTTP/1.1 200" not in answer_to(connection)


def test_large_bodies_are_none_of_it(site: str) -> None:
    for content in (b"x" * (8 << 20), iter([b"x" * 1000] * 2000)):
        assert httpx.post(f"{site}/5", content=content, trust_env=False).content == b"xxxxx"


def test_an_answer_that_nobody_takes_is_let_go_and_one_that_is_taken_slowly_is_not(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STALLED_AFTER_S", STALLED_S)
    with closing(connect(site)) as still, closing(connect(site)) as slow:
        for connection in (still, slow):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            connection.sendall(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % BIG)
        started, taken = time.monotonic(), 0
        while time.monotonic() - started < 3 * STALLED_S:
            some = slow.recv(1 << 16)
            assert some, f"ended after {time.monotonic() - started:.1f} s and {taken} bytes"
            taken += len(some)
            time.sleep(0.1)
        assert taken < BIG
        assert len(answer_to(slow)) > BIG - taken - 1000  # the rest, its head left out
        assert len(answer_to(still)) < BIG


def test_each_has_a_little_room_and_all_share_the_rest() -> None:
    room = Room(shared_bytes=10, free_bytes=5)
    with room.place() as first, room.place() as second:
        first(5)
        assert room.left_bytes == 10
        first(12)
        assert room.left_bytes == 3
        second(8)
        with pytest.raises(NoRoom):
            second(9)
        with room.place() as third:
            third(5)
            with pytest.raises(NoRoom):
                third(6)
        first(12)
    assert room.left_bytes == 10


@pytest.mark.django_db(transaction=True)
def test_bodies_that_never_end_keep_nobody_away_who_asks_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "room", room := Room(shared_bytes=1_000_000, free_bytes=1 << 15))
    with serving() as url:
        with closing(connect(url)) as endless:
            endless.sendall(
                b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1500000\r\n\r\n" + b" " * 900_000
            )
            assert soon(lambda: room.left_bytes < 200_000)
            large = httpx.post(f"{url}/graphql", content=b" " * 500_000, trust_env=False)
            assert (large.status_code, large.headers["Retry-After"]) == (503, "2")
            assert large.json()["errors"][0]["extensions"]["code"] == "BUSY"
            assert httpx.post(f"{url}/nowhere", content=b" " * 20_000, trust_env=False).status_code == 404
        assert soon(lambda: room.left_bytes == 1_000_000)
        assert httpx.post(f"{url}/nowhere", content=b" " * 500_000, trust_env=False).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_the_platforms_own_processes_speak_it(tmp_path: Path) -> None:
    with web_process(tmp_path) as url, closing(connect(url)) as connection:
        connection.sendall(GET + b"X-Long: " + b"x" * 200_000)
        said = answer_to(connection)  # in time
        assert said == b"" or said.startswith(b"HTTP/1.1 431 ")
