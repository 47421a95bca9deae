"""Transfers that are under way while something else happens: others come, they fall silent, somebody leaves."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings as django_settings
from django.db import connection

from accounts.actions.closing import close_organization
from accounts.models import Membership, Role
from common.tenancy import operator
from datasets.models import Upload
from datasets.receive import places, spool
from datasets.receive import put as putting
from tests.cast import Person, make_person
from tests.datasets.uploading import (
    COMPLETE,
    CONTENT,
    SHA256,
    WAITING,
    left_over,
    put,
    send,
    start,
    state,
    stored,
)
from tests.web import serving

# bytes are received in threads that have connections of their own: they see what has been committed
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def test_of_two_transfers_at_once_the_first_to_end_wins(ada: Person) -> None:
    ticket = start(ada)
    first: list[Any] = []

    def overtaken() -> Iterator[bytes]:
        yield CONTENT[:9]
        overtaking = threading.Thread(target=lambda: first.append(put(ticket, CONTENT)))
        overtaking.start()
        overtaking.join()
        yield CONTENT[9:]

    status, answer = send(urlsplit(ticket["url"]).path, overtaken()) or (0, {})
    assert first == [(201, {"receivedBytes": len(CONTENT), "sha256": SHA256})]
    assert (status, answer["code"]) == (409, "UPLOAD_COMPLETE")
    with operator():
        key = Upload.objects.get().storage_key
    assert stored() == [Path(django_settings.STORAGE_ROOT) / key]
    assert state(ada, ticket) == COMPLETE
    assert left_over() == []


def test_more_at_once_than_can_be_received_come_again(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_AT_ONCE", 1)
    ticket, other = start(ada), start(ada)
    beside: list[Any] = []

    def with_another_beside() -> Iterator[bytes]:
        yield CONTENT[:9]
        another = threading.Thread(target=lambda: beside.append(put(other, CONTENT)))
        another.start()
        another.join()
        yield CONTENT[9:]

    assert send(urlsplit(ticket["url"]).path, with_another_beside()) == (
        201,
        {"receivedBytes": len(CONTENT), "sha256": SHA256},
    )
    assert [(status, answer["code"]) for status, answer in beside] == [(503, "BUSY")]
    assert state(ada, other) == WAITING
    assert put(other, CONTENT) == (201, {"receivedBytes": len(CONTENT), "sha256": SHA256})


def test_one_organization_does_not_take_all_the_places(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MAX_OF_ONE_ORGANIZATION", 1)
    ticket, more, anothers = start(ada), start(ada), start(make_person("Eve"))
    beside: list[Any] = []

    def with_others_beside() -> Iterator[bytes]:
        yield CONTENT[:9]
        others = threading.Thread(target=lambda: beside.extend(put(other, CONTENT) for other in (more, anothers)))
        others.start()
        others.join()
        yield CONTENT[9:]

    received = (201, {"receivedBytes": len(CONTENT), "sha256": SHA256})
    assert send(urlsplit(ticket["url"]).path, with_others_beside()) == received
    (status, answer), of_another = beside
    assert (status, answer["code"], of_another) == (503, "BUSY", received)
    assert put(more, CONTENT) == received
    assert not places._of_each


def test_whoever_sends_nothing_any_more_is_not_waited_for(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(putting, "SILENCE_S", 0.2)
    ticket = start(ada)
    address = urlsplit(ticket["url"])
    with serving() as url, socket.create_connection((urlsplit(url).hostname, urlsplit(url).port or 0)) as silent:
        head = f"PUT {address.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
        silent.sendall(head.encode() + CONTENT[:9])
        silent.settimeout(10)
        assert silent.recv(12) == b"HTTP/1.1 408"
    assert (state(ada, ticket), left_over()) == (WAITING, [])


def close(person: Person) -> None:
    """From a thread of its own: the receiver's has an event loop."""

    def act() -> None:
        with operator():
            close_organization(actor=person.principal, organization=person.organization)
        connection.close()

    closing = threading.Thread(target=act)
    closing.start()
    closing.join()


def test_whoever_has_left_sends_no_bytes(ada: Person) -> None:
    ben = make_person("Ben", ada.organization, Role.MEMBER)
    ticket, stays = start(ben), start(ada)
    with operator():
        Membership.objects.filter(user=ben.user).delete()
    assert (put(ticket, CONTENT) or (0,))[0] == 404
    assert (stored(), left_over()) == ([], [])
    assert (put(stays, CONTENT) or (0,))[0] == 201


def test_an_organization_that_is_about_to_be_deleted_takes_no_bytes(ada: Person) -> None:
    ticket = start(ada)
    close(ada)
    status, answer = put(ticket, CONTENT) or (0, {})
    assert (status, answer["code"]) == (409, "ORGANIZATION_CLOSING")
    assert (stored(), left_over()) == ([], [])
    assert state(ada, ticket) == WAITING


@pytest.mark.parametrize("more", [0, 2])
def test_a_transfer_that_is_under_way_ends_where_its_organization_closes(
    ada: Person, more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where that was the last of it."""
    monkeypatch.setattr(spool, "REPORT_EVERY_S", -1.0)
    ticket, asked = start(ada, size=len(CONTENT) + more), []

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:9]
        close(ada)
        if not more:
            monkeypatch.setattr(spool, "REPORT_EVERY_S", 1e9)
        yield CONTENT[9:]
        for _ in range(more):
            asked.append(1)
            yield b"\n"

    status, answer = send(urlsplit(ticket["url"]).path, chunks()) or (0, {})
    assert (status, answer["code"], asked) == (409, "ORGANIZATION_CLOSING", [])
    assert (stored(), left_over()) == ([], [])
    assert state(ada, ticket) == WAITING
