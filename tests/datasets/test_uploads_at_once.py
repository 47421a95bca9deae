"""Many who send the same upload at once, whichever way: one of them prevails, whole, and is counted once."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.core.files.storage import default_storage
from django.utils import timezone

from common.tenancy import operator
from datasets.models import Upload
from datasets.receive import arrival
from tests.accounts.ledger import entries
from tests.accounts.locks import in_another_thread
from tests.cast import Person, make_person
from tests.datasets.uploading import left_over, start, state, stored
from tests.web import serving

pytestmark = pytest.mark.django_db(transaction=True)

PIECE = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
SIZE = 3_000_000


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def site() -> Iterator[str]:
    with serving() as url:
        yield url


def path_of(ticket: dict[str, Any]) -> str:
    return urlsplit(ticket["url"]).path


def test_of_many_one_prevails(ada: Person, site: str) -> None:
    ticket = start(ada, SIZE)
    contents = [bytes([number]) * SIZE for number in range(12)]

    def send(number: int) -> int:
        method, headers = ("PATCH", PIECE) if number % 2 else ("PUT", {})
        url = f"{site}{path_of(ticket)}"
        return httpx.request(
            method, url, content=contents[number], headers=headers, trust_env=False, timeout=60
        ).status_code

    with ThreadPoolExecutor(len(contents)) as clients:
        answers = list(clients.map(send, range(len(contents))))

    won = [number for number, status in enumerate(answers) if status in (201, 204)]
    assert len(won) == 1, answers
    assert {status for number, status in enumerate(answers) if number not in won} <= {404, 409, 423}
    assert state(ada, ticket)["sha256"] == hashlib.sha256(contents[won[0]]).hexdigest()
    with operator():
        upload = Upload.objects.get()
    with default_storage.open(upload.storage_key) as file:
        assert file.read() == contents[won[0]]
    assert (len(stored()), entries(ada)) == (1, {("STORAGE_BYTES", upload.usage_key): SIZE})
    assert [path.suffix for path in left_over()] in ([], [".part"])  # of a piece that came too late: the keeper's


def test_whoever_waits_for_the_row_while_another_completes_it_comes_too_late(ada: Person) -> None:
    start(ada)
    with operator():
        upload = Upload.objects.get()
    with in_another_thread() as begin:
        with operator():
            Upload.objects.update(completed_at=timezone.now(), sha256="a" * 64, storage_key="first")
            saying = begin(lambda: arrival._say_complete(upload, "b" * 64, "second"))
        assert saying.result(10) is False
    with operator():
        upload.refresh_from_db()
    assert (upload.sha256, upload.storage_key) == ("a" * 64, "first")


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 4\r\nContent-Length: 44\r\nUpload-Offset: 0",
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\nUpload-Offset: 0",
        "Transfer-Encoding: chunked, identity\r\nUpload-Offset: 0",
        "Content-Length: +4\r\nUpload-Offset: 0",
        "Content-Length : 4\r\nUpload-Offset: 0",
        "Content-Length: 4\r\nUpload-Offset: 0\r\nUpload-Offset: 4",
        "Content-Length: 4\r\nUpload-Offset: 0, 0",
        "Content-Length: 4\r\nUpload-Offset: 0\r\n folded: 1",
    ],
)
def test_a_head_that_may_be_read_in_two_ways_moves_nothing(ada: Person, site: str, headers: str) -> None:
    """Whoever stands in between may have read it in the other one."""
    ticket = start(ada, 4)
    parts = urlsplit(site)
    smuggled = (
        f"PUT {path_of(ticket)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\nConnection: close\r\n\r\nevil"
    )
    fixed = "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream"
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20) as connection:
        head = f"PATCH {path_of(ticket)} HTTP/1.1\r\nHost: localhost\r\n{fixed}\r\n{headers}\r\n\r\n0\r\n\r\n{smuggled}"
        connection.sendall(head.encode())
        said = b""
        try:
            while some := connection.recv(1 << 16):
                said += some
        except ConnectionResetError:
            pass
    assert said.startswith(b"HTTP/1.1 4") and b"HTTP/1.1 2" not in said, said
    assert (state(ada, ticket)["receivedBytes"], stored()) == (0, [])
