"""Files that are sent piece by piece: by a stock client of the tus protocol, and by one that does what it should not."""

from __future__ import annotations

import errno
import hashlib
import http.client
import io
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings
from django.core.files.storage import default_storage
from django.db import OperationalError
from django.utils import timezone
from tusclient.client import TusClient

from accounts.models import Membership, Role, UsageEntry, User
from common import blobs
from common.tenancy import operator
from datasets.models import Upload
from datasets.receive import arrival, partial, tus
from datasets.schedules import remove_bytes_that_no_upload_waits_for
from tests.cast import Person, make_person
from tests.datasets.uploading import CONTENT, SHA256, WAITING, left_over, start, state, stored
from tests.web import serving, soon

pytestmark = pytest.mark.django_db(transaction=True)

VERSION = {"Tus-Resumable": "1.0.0"}
PIECE = VERSION | {"Content-Type": "application/offset+octet-stream"}


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with serving() as url, httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        yield client


def path_of(ticket: dict[str, Any]) -> str:
    return urlsplit(ticket["url"]).path


def send(
    client: httpx.Client, ticket: dict[str, Any], content: bytes, offset: object, **headers: str
) -> httpx.Response:
    return client.patch(path_of(ticket), content=content, headers=PIECE | {"Upload-Offset": str(offset)} | headers)


def offset_of(client: httpx.Client, ticket: dict[str, Any]) -> int:
    answer = client.head(path_of(ticket), headers=VERSION)
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    return int(answer.headers["Upload-Offset"])


def the_bytes() -> bytes:
    with operator():
        key = Upload.objects.get().storage_key
    with default_storage.open(key) as file:
        content: bytes = file.read()
    return content


def arriving(person: Person, received: int) -> dict[str, Any]:
    return {"status": "RECEIVING", "receivedBytes": received, "sha256": None}


def test_a_stock_client_sends_a_file_in_pieces_and_goes_on_where_another_stopped(
    ada: Person, client: httpx.Client, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 1000
    file = tmp_path / "rows.jsonl"
    file.write_bytes(content)
    ticket = start(ada, len(content), sha256=hashlib.sha256(content).hexdigest())
    url = f"{client.base_url}{path_of(ticket)}"

    TusClient(url).uploader(str(file), chunk_size=50_000, url=url).upload(stop_at=100_000)
    assert state(ada, ticket) == arriving(ada, 100_000)
    uploader = TusClient(url).uploader(str(file), chunk_size=50_000, url=url)
    assert uploader.offset == 100_000
    uploader.upload()

    assert state(ada, ticket)["status"] == "COMPLETE"
    assert the_bytes() == content
    assert left_over() == []
    assert offset_of(client, ticket) == len(content)


def test_what_it_says_about_itself(ada: Person, client: httpx.Client) -> None:
    ticket = start(ada)
    can = client.options(path_of(ticket))
    assert can.status_code == 200
    assert {name: can.headers[name] for name in ("Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size")} == {
        "Tus-Resumable": "1.0.0",
        "Tus-Version": "1.0.0",
        "Tus-Extension": "termination,expiration",
        "Tus-Max-Size": str(settings.MAX_UPLOAD_BYTES),
    }
    now = client.head(path_of(ticket), headers=VERSION)
    assert (now.headers["Upload-Offset"], now.headers["Upload-Length"]) == ("0", str(len(CONTENT)))
    with operator():
        expires = Upload.objects.get().expires_at
    assert parsedate_to_datetime(now.headers["Upload-Expires"]) == expires.replace(microsecond=0)


def test_each_piece_says_how_far_it_has_come(ada: Person, client: httpx.Client) -> None:
    ticket = start(ada)
    first = send(client, ticket, CONTENT[:9], 0)
    assert (first.status_code, first.headers["Upload-Offset"], first.content) == (204, "9", b"")
    assert (state(ada, ticket), offset_of(client, ticket)) == (arriving(ada, 9), 9)
    nothing = send(client, ticket, b"", 9)
    assert (nothing.status_code, nothing.headers["Upload-Offset"]) == (204, "9")
    last = send(client, ticket, CONTENT[9:], 9)
    assert (last.status_code, last.headers["Upload-Offset"]) == (204, str(len(CONTENT)))
    assert (state(ada, ticket)["sha256"], the_bytes(), left_over()) == (SHA256, CONTENT, [])
    more = send(client, ticket, b"", len(CONTENT))
    assert (more.status_code, more.json()["code"]) == (409, "UPLOAD_COMPLETE")


@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, b"x", 412, "WRONG_VERSION"),
        ({"Content-Type": "application/octet-stream"}, b"x", 415, "WRONG_CONTENT_TYPE"),
        ({"Upload-Offset": "-1"}, b"x", 400, "WRONG_OFFSET"),
        ({"Upload-Offset": "²"}, b"x", 400, "WRONG_OFFSET"),
        ({"Upload-Offset": ""}, b"x", 400, "WRONG_OFFSET"),
        ({"Upload-Offset": "8"}, b"x", 409, "WRONG_OFFSET"),
        ({"Upload-Offset": "10"}, b"x", 409, "WRONG_OFFSET"),
        ({"Upload-Offset": "9" * 400}, b"x", 400, "WRONG_OFFSET"),
        ({"Upload-Offset": "9" * 5000}, b"x", 400, "WRONG_OFFSET"),
        ({}, CONTENT[9:] + b"x", 400, "WRONG_SIZE"),
    ],
)
def test_a_piece_that_does_not_fit_is_refused_and_what_was_there_stays(
    ada: Person, client: httpx.Client, headers: dict[str, str], content: bytes, status: int, code: str
) -> None:
    ticket = start(ada)
    send(client, ticket, CONTENT[:9], 0)
    wanted = (PIECE | {"Upload-Offset": "9"} | headers).items()
    refused = client.patch(
        path_of(ticket), content=content, headers=[(name.encode(), value.encode()) for name, value in wanted]
    )
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.headers.get("Tus-Version") == ("1.0.0" if status == 412 else None)
    assert offset_of(client, ticket) == 9
    assert send(client, ticket, CONTENT[9:], 9).status_code == 204
    assert the_bytes() == CONTENT


def test_other_bytes_than_announced_are_refused_at_the_end_and_it_begins_anew(
    ada: Person, client: httpx.Client
) -> None:
    ticket = start(ada, sha256=SHA256)
    send(client, ticket, CONTENT[:9].swapcase(), 0)
    refused = send(client, ticket, CONTENT[9:], 9)
    assert (refused.status_code, refused.json()["code"]) == (400, "SHA256_MISMATCH")
    assert (state(ada, ticket), stored(), left_over(), offset_of(client, ticket)) == (WAITING, [], [], 0)
    assert send(client, ticket, CONTENT, 0).status_code == 204
    assert the_bytes() == CONTENT


def test_a_connection_that_breaks_off_keeps_what_has_arrived(ada: Person, client: httpx.Client) -> None:
    ticket = start(ada)
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as broken:
        head = f"PATCH {path_of(ticket)} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(CONTENT)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in (PIECE | {"Upload-Offset": "0"}).items())
        broken.sendall(f"{head}\r\n".encode() + CONTENT[:9])
        assert soon(lambda: partial.path_of(upload_of(ticket)).exists())
        locked = send(client, ticket, CONTENT, 0)
        assert (locked.status_code, locked.json()["code"]) == (423, "LOCKED")
    assert soon(lambda: offset_of(client, ticket) == 9 and send(client, ticket, b"", 9).status_code == 204)
    assert send(client, ticket, CONTENT[9:], 9).status_code == 204
    assert the_bytes() == CONTENT


def test_one_that_falls_silent_is_given_up_and_keeps_what_has_arrived(
    ada: Person, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tus, "SILENCE_S", 0.2)
    ticket = start(ada)
    silent = http.client.HTTPConnection(client.base_url.host, client.base_url.port)
    silent.putrequest("PATCH", path_of(ticket))
    for name, value in (PIECE | {"Upload-Offset": "0", "Content-Length": str(len(CONTENT))}).items():
        silent.putheader(name, value)
    silent.endheaders(CONTENT[:9])
    assert silent.getresponse().status == 408
    silent.close()
    assert offset_of(client, ticket) == 9


def upload_of(ticket: dict[str, Any]) -> Upload:
    with operator():
        return Upload.objects.get()


def test_a_file_whose_last_request_died_before_it_could_say_so_is_completed_by_the_next_look(
    ada: Person, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = start(ada, sha256=SHA256)
    partial.path_of(upload_of(ticket)).write_bytes(CONTENT)
    assert state(ada, ticket) == WAITING
    assert offset_of(client, ticket) == len(CONTENT)
    assert (state(ada, ticket)["sha256"], the_bytes(), left_over()) == (SHA256, CONTENT, [])


def test_an_empty_file_is_complete_at_the_first_look(ada: Person, client: httpx.Client) -> None:
    ticket = start(ada, 0)
    assert offset_of(client, ticket) == 0
    assert state(ada, ticket)["status"] == "COMPLETE"
    assert left_over() == []


def test_storage_that_fails_at_the_end_costs_nothing_of_what_has_arrived(
    ada: Person, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = start(ada)
    send(client, ticket, CONTENT[:9], 0)
    with monkeypatch.context() as broken:
        broken.setattr(blobs, "put", lambda *_, **__: os.pwrite(os.open("/dev/full", os.O_WRONLY), b"x", 0))
        failed = send(client, ticket, CONTENT[9:], 9)
        assert (failed.status_code, failed.json()["code"]) == (507, "DISK_FULL")
    assert state(ada, ticket) == arriving(ada, len(CONTENT))
    assert offset_of(client, ticket) == len(CONTENT)
    assert (the_bytes(), left_over()) == (CONTENT, [])


@pytest.mark.parametrize("where", ["_say_complete", "report"])
def test_a_database_that_is_away_at_the_end_costs_nothing_of_what_has_arrived(
    ada: Person, client: httpx.Client, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    ticket = start(ada)
    send(client, ticket, CONTENT[:9], 0)

    def away(*_: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as broken:
        broken.setattr(tus if where == "report" else arrival, where, away)
        assert send(client, ticket, CONTENT[9:], 9).status_code == 503
    assert offset_of(client, ticket) == len(CONTENT)
    assert (the_bytes(), left_over()) == (CONTENT, [])


def test_a_disk_that_takes_a_part_of_a_piece_has_that_part_and_no_more(
    ada: Person, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does whose last free bytes it is, which is no error."""
    ticket = start(ada)
    really = partial.held

    class Reluctant(io.FileIO):
        def write(self, block: Any) -> int:
            if self.tell() >= 20:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(bytes(block)[:4])

    @contextmanager
    def held(upload: Upload) -> Iterator[Any]:
        with really(upload) as file, Reluctant(file.name, "ab") as reluctant:
            yield reluctant

    with monkeypatch.context() as full:
        full.setattr(partial, "held", held)
        refused = send(client, ticket, CONTENT, 0)
        assert (refused.status_code, refused.json()["code"]) == (507, "DISK_FULL")
    assert (offset_of(client, ticket), state(ada, ticket)["status"]) == (20, "RECEIVING")
    assert send(client, ticket, CONTENT[20:], 20).status_code == 204
    assert the_bytes() == CONTENT


def test_one_that_is_put_while_it_is_given_up_is_refused(ada: Person, client: httpx.Client) -> None:
    """Its place is free for another by then."""
    ticket = start(ada)

    def chunks() -> Iterator[bytes]:
        yield CONTENT[:9]
        assert client.delete(path_of(ticket), headers=VERSION).status_code == 204
        yield CONTENT[9:]

    with httpx.Client(base_url=client.base_url, trust_env=False) as other:
        headers = {"Content-Length": str(len(CONTENT))}
        assert other.put(path_of(ticket), content=chunks(), headers=headers).status_code == 404
    assert (stored(), left_over()) == ([], [])
    with operator():
        assert not UsageEntry.objects.exists()


def test_whoever_comes_just_after_the_end_finds_it_complete(
    ada: Person, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last piece's request ends between another's look at the file and its turn to hold it."""
    ticket = start(ada)
    send(client, ticket, CONTENT[:9], 0)
    really, overtaken = partial.size_of, []

    def size_of(upload: Upload) -> int:
        size = really(upload)
        if not overtaken:
            overtaken.append(1)
            size = len(CONTENT)
            with httpx.Client(base_url=client.base_url, trust_env=False) as other:
                assert send(other, ticket, CONTENT[9:], 9).status_code == 204
        return size

    monkeypatch.setattr(partial, "size_of", size_of)
    assert offset_of(client, ticket) == len(CONTENT)
    assert (the_bytes(), state(ada, ticket)["sha256"]) == (CONTENT, SHA256)


def test_one_that_is_given_up_is_gone_and_its_place_is_free(ada: Person, client: httpx.Client) -> None:
    ticket = start(ada)
    send(client, ticket, CONTENT[:9], 0)
    assert client.delete(path_of(ticket), headers={"Tus-Resumable": "0.2.2"}).status_code == 412
    gone = client.delete(path_of(ticket), headers=VERSION)
    assert (gone.status_code, gone.headers["Tus-Resumable"]) == (204, "1.0.0")
    assert state(ada, ticket) == {"status": "EXPIRED", "receivedBytes": 0, "sha256": None}
    assert left_over() == []
    with operator():
        assert not UsageEntry.objects.exists()
    assert client.head(path_of(ticket), headers=VERSION).status_code == 404
    assert client.delete(path_of(ticket), headers=VERSION).status_code == 404


def test_a_complete_one_is_not_given_up(ada: Person, client: httpx.Client) -> None:
    ticket = start(ada)
    send(client, ticket, CONTENT, 0)
    refused = client.delete(path_of(ticket), headers=VERSION)
    assert (refused.status_code, refused.json()["code"]) == (409, "UPLOAD_COMPLETE")
    assert the_bytes() == CONTENT


def test_a_client_that_can_only_post_names_the_method_it_means(ada: Person, client: httpx.Client) -> None:
    ticket = start(ada)
    headers = PIECE | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert client.post(path_of(ticket), content=CONTENT, headers=headers).status_code == 204
    assert the_bytes() == CONTENT


def test_whole_files_may_still_be_put_after_a_few_pieces(ada: Person, client: httpx.Client) -> None:
    ticket = start(ada)
    send(client, ticket, CONTENT[:9], 0)
    assert client.put(path_of(ticket), content=CONTENT).status_code == 201
    assert send(client, ticket, CONTENT[9:], 9).status_code == 409
    remove_bytes_that_no_upload_waits_for()
    assert (the_bytes(), left_over()) == (CONTENT, [])


def test_a_url_that_is_not_ours_is_not_found_without_a_body(client: httpx.Client) -> None:
    answer = client.head("/uploads/nobodys", headers=VERSION)
    assert (answer.status_code, answer.content) == (404, b"")
    assert "Upload-Offset" not in answer.headers


def test_pieces_wait_until_their_ticket_expires_and_no_longer_than_anybody_sends_more(
    ada: Person, client: httpx.Client
) -> None:
    ticket = start(ada)
    send(client, ticket, CONTENT[:9], 0)
    upload = upload_of(ticket)
    long_ago = time.time() - 20 * 3600
    os.utime(partial.path_of(upload), (long_ago, long_ago))
    remove_bytes_that_no_upload_waits_for()
    assert left_over() == [partial.path_of(upload)]
    with operator():
        Upload.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with partial.held(upload):
        remove_bytes_that_no_upload_waits_for()
        assert left_over() == [partial.path_of(upload)]
    remove_bytes_that_no_upload_waits_for()
    assert left_over() == []


@pytest.mark.parametrize("what", ["left", "looks on", "locked"])
def test_whoever_may_start_no_upload_any_more_sends_no_pieces(ada: Person, client: httpx.Client, what: str) -> None:
    ben = make_person("Ben", ada.organization, Role.MEMBER)
    ticket = start(ben)
    send(client, ticket, CONTENT[:9], 0)
    with operator():
        theirs = Membership.objects.filter(user=ben.user)
        if what == "left":
            theirs.delete()
        elif what == "looks on":
            theirs.update(role=Role.VIEWER)
        else:
            User.objects.filter(pk=ben.user.pk).update(is_active=False)
    assert send(client, ticket, CONTENT[9:], 9).status_code == 404
    assert client.put(path_of(ticket), content=CONTENT).status_code == 404
    assert client.head(path_of(ticket), headers=VERSION).status_code == 404
    assert stored() == []
