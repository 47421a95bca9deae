"""Uploads: a ticket by GraphQL, then a plain PUT of the bytes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings as django_settings
from django.core import signing
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from accounts.actions.closing import close_organization
from accounts.models import Membership, Role
from common.tenancy import operator
from datasets import receive
from datasets.models import Upload
from datasets.receive import receive_upload
from tests.cast import Person, make_person
from tests.rows import global_id
from tests.web import serving

START = """
mutation ($input: StartUploadInput!) { startUpload(input: $input) {
  __typename
  ... on UploadTicket { url protocols headers expiresAt upload { id fileName sizeBytes receivedBytes sha256 status } }
  ... on OperationInfo { messages { kind code field message } }
} }
"""
UPLOAD = "query ($id: ID!) { upload(id: $id) { status receivedBytes sha256 } }"
CONTENT = b'{"text": "one"}\n{"text": "two"}\n'
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WAITING = {"status": "WAITING", "receivedBytes": 0, "sha256": None}
COMPLETE = {"status": "COMPLETE", "receivedBytes": len(CONTENT), "sha256": SHA256}

# bytes are received in threads that have connections of their own: they see what has been committed
pytestmark = pytest.mark.django_db(transaction=True)
in_one_transaction = pytest.mark.django_db()


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def start(person: Person, size: int = len(CONTENT), **fields: Any) -> dict[str, Any]:
    """A ticket for `size` bytes."""
    answer = person.data(START, input={"fileName": "rows.jsonl", "sizeBytes": size, **fields})["startUpload"]
    assert answer["__typename"] == "UploadTicket", answer
    return answer


def state(person: Person, ticket: dict[str, Any]) -> dict[str, Any]:
    return person.data(UPLOAD, id=ticket["upload"]["id"])["upload"]


def stored() -> list[Path]:
    return sorted(path for path in Path(django_settings.STORAGE_ROOT).rglob("*") if path.is_file())


def left_over() -> list[Path]:
    return list((Path(django_settings.HOME) / "incoming").glob("*"))


def send(
    path: str,
    chunks: Iterator[bytes] | list[bytes],
    *,
    method: str = "PUT",
    length: int | None = None,
    cut: bool = False,
) -> tuple[int, dict[str, Any]] | None:
    """PUT `chunks` to the receiver, as a server would hand them over; None where the client went away and got nothing."""
    sent: list[dict[str, Any]] = []

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.disconnect"} if cut else {"type": "http.request", "body": b"", "more_body": False}

    async def run() -> None:
        incoming = messages()

        async def note(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [] if length is None else [(b"content-length", str(length).encode())]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        await receive_upload(scope, incoming.__anext__, note)

    asyncio.run(run())
    if not sent:
        return None
    return sent[0]["status"], json.loads(sent[1]["body"])


def put(ticket: dict[str, Any], *chunks: bytes, **how: Any) -> tuple[int, dict[str, Any]] | None:
    return send(urlsplit(ticket["url"]).path, list(chunks), **how)


@in_one_transaction
def test_a_ticket_says_where_how_and_until_when(ada: Person) -> None:
    ticket = start(ada)
    assert ticket["url"].startswith(f"{django_settings.PUBLIC_URL}/uploads/")
    assert (ticket["protocols"], ticket["headers"]) == (["PUT"], {})
    assert {**ticket["upload"], "id": None} == {
        "id": None,
        "fileName": "rows.jsonl",
        "sizeBytes": len(CONTENT),
        **WAITING,
    }
    with operator():
        upload = Upload.objects.get()
    assert (upload.organization_id, upload.created_by_id) == (ada.organization.pk, ada.user.pk)
    assert ticket["upload"]["id"] == global_id(upload)


@in_one_transaction
@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"sizeBytes": -1}, "INVALID_SIZE", "sizeBytes"),
        ({"sizeBytes": 2**53}, "INVALID_SIZE", "sizeBytes"),
        ({"fileName": ""}, "INVALID", "fileName"),
        ({"fileName": "a\x00b"}, "INVALID", "fileName"),
        ({"fileName": "a\ud800b"}, "INVALID", "fileName"),
        ({"fileName": "rows\u202elnosj"}, "INVALID", "fileName"),  # reads backwards
        ({"fileName": "ä" * 301}, "INVALID", "fileName"),
        ({"sha256": "abc"}, "INVALID", "sha256"),
        ({"sha256": "g" * 64}, "INVALID", "sha256"),
    ],
)
def test_what_cannot_be_announced_is_refused_by_its_field(
    ada: Person, fields: dict[str, Any], code: str, field: str
) -> None:
    refusal = ada.data(START, input={"fileName": "rows.jsonl", "sizeBytes": 1, **fields})["startUpload"]
    assert [(one["kind"], one["code"], one["field"]) for one in refusal["messages"]] == [("VALIDATION", code, field)]
    with operator():
        assert Upload.objects.count() == 0


@in_one_transaction
@pytest.mark.parametrize("size", [1.5, True, "7", 2**53 + 1, 10**30])
def test_a_size_that_is_no_whole_number_is_no_request(ada: Person, size: object) -> None:
    answer = ada.ask(START, input={"fileName": "rows.jsonl", "sizeBytes": size})
    assert "whole number up to 2^53" in answer["errors"][0]["message"]
    assert "code" not in answer["errors"][0].get("extensions", {})


@in_one_transaction
def test_a_viewer_gets_no_ticket(alice: Person, vera: Person) -> None:
    refusal = vera.data(START, input={"fileName": "rows.jsonl", "sizeBytes": 1})["startUpload"]
    assert [(one["kind"], one["code"]) for one in refusal["messages"]] == [("PERMISSION", "NOT_ALLOWED")]
    with operator():
        assert Upload.objects.count() == 0


def test_bytes_arrive_whole_and_once(ada: Person) -> None:
    ticket = start(ada, sha256=SHA256.upper())
    assert state(ada, ticket) == WAITING
    assert put(ticket, CONTENT[:5], b"", CONTENT[5:], length=len(CONTENT)) == (
        201,
        {"receivedBytes": len(CONTENT), "sha256": SHA256},
    )
    assert state(ada, ticket) == COMPLETE
    with operator():
        upload = Upload.objects.get()
    assert upload.storage_key.startswith(f"t/{ada.organization.pk}/uploads/{upload.pk}/")
    with default_storage.open(upload.storage_key) as file:
        assert file.read() == CONTENT
    status, answer = put(ticket, CONTENT) or (0, {})
    assert (status, answer["code"]) == (409, "UPLOAD_COMPLETE")
    assert (len(stored()), left_over()) == (1, [])


def test_an_empty_file_is_an_upload_too(ada: Person) -> None:
    assert put(start(ada, 0)) == (201, {"receivedBytes": 0, "sha256": hashlib.sha256(b"").hexdigest()})


@pytest.mark.parametrize(
    ("chunks", "length", "code"),
    [
        ([CONTENT[:-1]], None, "WRONG_SIZE"),
        ([CONTENT, b"x"], None, "WRONG_SIZE"),
        ([b"x" * (3 << 20)], None, "WRONG_SIZE"),
        ([CONTENT], len(CONTENT) + 1, "WRONG_SIZE"),  # refused before a byte is read
        ([CONTENT.swapcase()], None, "SHA256_MISMATCH"),
    ],
)
def test_other_bytes_than_announced_are_refused_and_leave_nothing(
    ada: Person, chunks: list[bytes], length: int | None, code: str
) -> None:
    ticket = start(ada, sha256=SHA256)
    status, answer = put(ticket, *chunks, length=length) or (0, {})
    assert (status, answer["code"]) == (400, code)
    assert state(ada, ticket) == WAITING
    assert (stored(), left_over()) == ([], [])
    assert put(ticket, CONTENT) == (201, {"receivedBytes": len(CONTENT), "sha256": SHA256})


def test_a_transfer_that_breaks_off_leaves_nothing_and_can_be_repeated(ada: Person) -> None:
    ticket = start(ada)
    assert put(ticket, CONTENT[:7], cut=True) is None
    assert state(ada, ticket) == WAITING
    assert (stored(), left_over()) == ([], [])
    assert put(ticket, CONTENT) == (201, {"receivedBytes": len(CONTENT), "sha256": SHA256})
    assert state(ada, ticket) == COMPLETE


def test_a_ticket_that_is_not_ours_or_not_valid_any_more_is_not_found(ada: Person) -> None:
    ticket = start(ada)
    path = urlsplit(ticket["url"]).path
    with operator():
        upload = Upload.objects.get()
    ids = [str(upload.organization_id), str(upload.pk)]
    other = [str(make_person("Charlie").organization.pk), str(upload.pk)]
    expired = {
        path[:-1] + ("A" if path[-1] != "A" else "B"),
        "/uploads/" + signing.dumps(ids, salt="another"),
        "/uploads/" + signing.dumps(ids, salt="datasets.upload", key="another key"),
        "/uploads/" + signing.dumps(other, salt="datasets.upload"),  # signed, but not its organization
        "/uploads/" + signing.dumps(["x", "y"], salt="datasets.upload"),
        "/uploads/" + signing.dumps(None, salt="datasets.upload"),
        "/uploads/",
        "/uploads/\ufffd",
        "/uploads/../../etc/passwd",
    }
    answers = {json.dumps(send(path, [CONTENT])) for path in expired}
    with operator():
        Upload.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    answers.add(json.dumps(send(path, [CONTENT])))
    (answer,) = answers
    assert json.loads(answer)[0] == 404
    assert (stored(), left_over()) == ([], [])


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
    monkeypatch.setattr(receive, "MAX_AT_ONCE", 1)
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
    monkeypatch.setattr(receive, "MAX_OF_ONE_ORGANIZATION", 1)
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
    assert not receive._of_each


def test_whoever_sends_nothing_any_more_is_not_waited_for(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "SILENCE_S", 0.2)
    ticket = start(ada)
    address = urlsplit(ticket["url"])
    with serving() as url, socket.create_connection((urlsplit(url).hostname, urlsplit(url).port or 0)) as silent:
        head = f"PUT {address.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
        silent.sendall(head.encode() + CONTENT[:9])
        silent.settimeout(10)
        assert silent.recv(12) == b"HTTP/1.1 408"
    assert (state(ada, ticket), left_over()) == (WAITING, [])


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "DELETE"])
def test_other_methods_than_put_are_refused(ada: Person, method: str) -> None:
    status, answer = put(start(ada), CONTENT, method=method) or (0, {})
    assert (status, answer["code"]) == (405, "METHOD_NOT_ALLOWED")


def test_memory_does_not_grow_with_the_body(ada: Person) -> None:
    block, count = b"x" * (1 << 16), 1024
    ticket = start(ada, len(block) * count)
    tracemalloc.start()
    try:
        answer = send(urlsplit(ticket["url"]).path, (block for _ in range(count)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer == (201, {"receivedBytes": 64 << 20, "sha256": hashlib.sha256(block * count).hexdigest()})
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "name",
    ["../../x", "/etc/passwd", "%2e%2e%2fx", "..", ".", "C:\\x", "ä" * 300, "\u0645\u0644\u0641.jsonl", "a b;$(x)"],
)
def test_a_file_name_never_reaches_a_storage_key(ada: Person, name: str) -> None:
    ticket = start(ada, fileName=name)
    assert ticket["upload"]["fileName"] == name
    assert put(ticket, CONTENT) == (201, {"receivedBytes": len(CONTENT), "sha256": SHA256})
    with operator():
        upload = Upload.objects.get()
    folder = Path(django_settings.STORAGE_ROOT) / "t" / str(ada.organization.pk) / "uploads" / str(upload.pk)
    (file,) = stored()
    assert file.parent == folder
    assert file.name.isalnum()


def test_over_a_real_socket(ada: Person) -> None:
    content = bytes(range(256)) * 20_000
    ticket = start(ada, len(content))
    with serving() as url, httpx.Client(base_url=url, trust_env=False) as client:
        path = urlsplit(ticket["url"]).path
        wrong = client.put(path, content=content[:-1])
        assert (wrong.status_code, wrong.json()["code"]) == (400, "WRONG_SIZE")
        right = client.put(path, content=content)
        digest = hashlib.sha256(content).hexdigest()
        assert (right.status_code, right.json()) == (201, {"receivedBytes": len(content), "sha256": digest})
        chunked = client.put(path, content=iter([content]))
        assert (chunked.status_code, chunked.json()["code"]) == (409, "UPLOAD_COMPLETE")
        assert client.put("/uploads/x", content=b"").status_code == 404
        assert client.get(path).status_code == 405


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
    monkeypatch.setattr(receive, "REPORT_EVERY_S", -1.0)
    ticket, asked = start(ada, size=len(CONTENT) + more), []

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:9]
        close(ada)
        if not more:
            monkeypatch.setattr(receive, "REPORT_EVERY_S", 1e9)
        yield CONTENT[9:]
        for _ in range(more):
            asked.append(1)
            yield b"\n"

    status, answer = send(urlsplit(ticket["url"]).path, chunks()) or (0, {})
    assert (status, answer["code"], asked) == (409, "ORGANIZATION_CLOSING", [])
    assert (stored(), left_over()) == ([], [])
    assert state(ada, ticket) == WAITING
