"""A disk that is slow stops no one but those who wait for it: nothing on the event loop touches an upload's files."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings

from tests.cast import Person, make_person
from tests.datasets.uploading import CONTENT, left_over, put, start, state
from tests.web import serving

pytestmark = pytest.mark.django_db(transaction=True)

VERSION = {"Tus-Resumable": "1.0.0"}
PIECE = VERSION | {"Content-Type": "application/offset+octet-stream"}
TOUCHES = ("open", "os.remove", "os.rename", "os.mkdir", "os.link", "fcntl.flock")

_heard: list[list[tuple[str, bool]]] = []
"""Of each who listens now: what touched a file, and whether that was on an event loop."""


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _heard and event in TOUCHES and (event == "fcntl.flock" or str(settings.HOME) in str(arguments[0])):
        on_the_loop = asyncio._get_running_loop() is not None
        for each in _heard:
            each.append((event, on_the_loop))


@contextmanager
def touches() -> Iterator[list[tuple[str, bool]]]:
    if not hasattr(_hear, "is_added"):  # there is no taking one away again
        sys.addaudithook(_hear)
        _hear.is_added = True  # type: ignore[attr-defined]
    heard: list[tuple[str, bool]] = []
    _heard.append(heard)
    try:
        yield heard
    finally:
        _heard.remove(heard)


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def off_the_loop_alone(heard: list[tuple[str, bool]]) -> set[str]:
    assert [event for event, on_the_loop in heard if on_the_loop] == []
    return {event for event, _ in heard}


def test_a_whole_file_and_one_that_breaks_off(ada: Person) -> None:
    ticket, broken = start(ada), start(ada)
    with touches() as heard:
        assert put(broken, CONTENT[:9], cut=True) is None
        answer = put(ticket, CONTENT)
    assert answer is not None and answer[0] == 201
    assert off_the_loop_alone(heard) == {"open", "os.mkdir", "os.remove", "os.rename"}
    assert (state(ada, ticket)["status"], left_over()) == ("COMPLETE", [])


def test_pieces(ada: Person) -> None:
    ticket, other, given_up = start(ada), start(ada, sha256=hashlib.sha256(b"other").hexdigest()), start(ada)
    with serving() as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:

        def send(to: dict[str, Any], content: bytes, offset: int) -> int:
            headers = PIECE | {"Upload-Offset": str(offset)}
            return client.patch(urlsplit(to["url"]).path, content=content, headers=headers).status_code

        with touches() as heard:
            assert [send(ticket, CONTENT[:9], 0), send(ticket, b"x", 8), send(ticket, CONTENT[9:], 9)] == [
                204,
                409,
                204,
            ]
            assert send(other, CONTENT, 0) == 400
            assert send(given_up, CONTENT[:9], 0) == 204
            path = urlsplit(given_up["url"]).path
            assert client.head(path, headers=VERSION).headers["Upload-Offset"] == "9"
            assert client.delete(path, headers=VERSION).status_code == 204
    assert off_the_loop_alone(heard) == {"open", "os.mkdir", "os.remove", "os.rename", "os.link", "fcntl.flock"}
    assert (state(ada, ticket)["status"], left_over()) == ("COMPLETE", [])
