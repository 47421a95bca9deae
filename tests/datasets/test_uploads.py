"""Uploads: a ticket by GraphQL, then a plain PUT of the bytes."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings as django_settings
from django.core import signing
from django.core.files.storage import default_storage
from django.utils import timezone

from common.tenancy import operator
from datasets.models import Upload
from tests.cast import Person, make_person
from tests.datasets.uploading import (
    COMPLETE,
    CONTENT,
    SHA256,
    START,
    WAITING,
    left_over,
    put,
    send,
    start,
    state,
    stored,
)
from tests.rows import global_id
from tests.web import serving

# bytes are received in threads that have connections of their own: they see what has been committed
pytestmark = pytest.mark.django_db(transaction=True)
in_one_transaction = pytest.mark.django_db()


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@in_one_transaction
def test_a_ticket_says_where_how_and_until_when(ada: Person) -> None:
    ticket = start(ada)
    assert ticket["url"].startswith(f"{django_settings.PUBLIC_URL}/uploads/")
    assert (ticket["protocols"], ticket["headers"]) == (["PUT", "TUS"], {})
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


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_methods_are_refused(ada: Person, method: str) -> None:
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
