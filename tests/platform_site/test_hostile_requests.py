"""Slow, broken, and absurd requests: each gets its answer, and nobody else waits for it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.db import connection

from platform_site import bodies
from platform_site.address import Address
from platform_site.roles import Platform
from tests.cast import Person, make_person
from tests.web import serving

pytestmark = pytest.mark.django_db(transaction=True)

MORE_THAN_THE_THREADS = 40


@pytest.fixture
def site() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def open_socket(site: str, request: bytes, receive_buffer: int | None = None) -> socket.socket:
    opened = socket.socket()
    if receive_buffer is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    opened.settimeout(10)
    opened.connect((urlsplit(site).hostname, urlsplit(site).port))
    opened.sendall(request)
    return opened


UNFINISHED = b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{"
LARGE = b"GET /static/graphiql/vendor/graphiql.min.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(("request_", "buffer"), [(UNFINISHED, None), (LARGE, 2048)])
def test_those_who_send_or_read_slowly_hold_nobody_up(site: str, request_: bytes, buffer: int | None) -> None:
    with ExitStack() as sockets:
        for _ in range(MORE_THAN_THE_THREADS):
            sockets.enter_context(open_socket(site, request_, buffer))
        assert httpx.get(f"{site}/livez", timeout=10).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for_for_ever(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.3)
    with open_socket(site, UNFINISHED) as opened:
        assert opened.recv(100).startswith(b"HTTP/1.1 408")


def test_a_body_in_chunks_is_a_body(site: str, ada: Person) -> None:
    chunks = iter([b'{"query": ', b'"{ me { email } }"}'])
    answer = httpx.post(
        f"{site}/graphql",
        content=chunks,
        headers={"Content-Type": "application/json", "Authorization": f"Bearer {ada.token}"},
    )
    assert answer.json() == {"data": {"me": {"email": "ada@example.com"}}}


HALF_A_PAIR = '{"query": "{ me { email } }", "operationName": "\\ud800"}'
DIGITS = json.dumps({"query": f"{{ datasets(first: {'9' * 5000}) {{ totalCount }} }}"})


@pytest.mark.parametrize(
    ("path", "body", "accept", "status", "says"),
    [
        ("/graphql", HALF_A_PAIR, "*/*", 400, ""),
        ("/graphql/stream", HALF_A_PAIR, "text/event-stream", 400, ""),
        ("/graphql", DIGITS, "*/*", 200, "A number here has too many digits."),
        ("/graphql/stream", '{"query": ""}', "text/event-stream", 400, ""),
        ("/graphql/stream", '{"query": "subscription { x }"}', "application/json", 406, "Accept: text/event-stream"),
    ],
)
def test_absurd_requests_are_the_askers_fault(
    site: str, ada: Person, path: str, body: str, accept: str, status: int, says: str
) -> None:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {ada.token}", "Accept": accept}
    answer = httpx.post(f"{site}{path}", content=body, headers=headers)
    assert (answer.status_code, "INTERNAL" in answer.text) == (status, False)
    assert says in answer.text


@pytest.mark.parametrize("name", ["sessionid", "csrftoken", "messages"])
def test_a_cookie_that_no_row_can_have_is_nobodys(site: str, name: str) -> None:
    cookie = f'{name}="{chr(92)}000{"A" * 32}"'  # a quoted one may spell any byte
    answer = httpx.get(f"{site}/admin/", headers={"Cookie": cookie}, follow_redirects=True)
    assert (answer.status_code, "Log in" in answer.text) == (200, True)


def test_a_database_that_is_away_is_a_503_that_says_when_to_come_again(ada: Person, settings: Any) -> None:
    there = connection.settings_dict["HOST"]
    connection.close()
    connection.settings_dict["HOST"] = "/nowhere"
    try:
        answer = ada.client.post(
            "/graphql",
            {"query": "{ me { email } }"},
            content_type="application/json",
            headers={"Authorization": f"Bearer {ada.token}"},
        )
    finally:
        connection.settings_dict["HOST"] = there
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"


def test_a_stop_during_the_start_is_heard(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_HOME", str(tmp_path))
    platform = Platform(Address.free())
    monkeypatch.setattr(platform, "_migrate", platform.ask_to_stop)
    try:
        platform.start()
        platform.wait_ready(0.5)  # raises NotReady where the stop was not heard
        assert platform.is_stopping
    finally:
        platform.stop()
