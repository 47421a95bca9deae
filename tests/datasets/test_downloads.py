"""A version's rows over a link: who gets one, how long it works, and what a download holds up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from django.conf import settings as django_settings
from django.core import signing
from django.db import connection

from accounts import audit
from accounts.models import AuditEntry
from common import blobs
from common.tenancy import operator
from datasets import exports, signed_links
from datasets.actions import delete_dataset
from datasets.download import places, route
from datasets.models import DatasetVersion
from tests.cast import Person, make_person
from tests.datasets.test_export import write
from tests.rows import global_id, make_dataset, make_version
from tests.web import serving, soon

# files are looked up in threads that have connections of their own: they see what has been committed
pytestmark = pytest.mark.django_db(transaction=True)

URL = "query ($id: ID!, $format: ExportFormat!, $split: SplitName) { datasetVersion(id: $id) { downloadUrl(format: $format, split: $split) } }"
ROWS = [{"prompt": f"def f{number}(x):\n", "completion": f"    return x + {number}"} for number in range(40)]


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def version(ada: Person, tmp_path: Path) -> DatasetVersion:
    return version_of(ada, tmp_path)


def version_of(person: Person, folder: Path) -> DatasetVersion:
    version = make_version(person, make_dataset(person, 'Füße "und" / so\\..'))
    for path in write(folder / f"shards of {person.user.name}", train=ROWS[:30], test=ROWS[30:]).iterdir():
        blobs.put(f"{version.artefacts}/0001/{path.name}", path)
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(storage_prefix=f"{version.artefacts}/0001")
        return DatasetVersion.objects.select_related("dataset").get(pk=version.pk)


@pytest.fixture
def url() -> Iterator[str]:
    with serving() as url:
        yield url


def link(person: Person, version: DatasetVersion, format: str = "JSONL", split: str | None = None) -> str:
    answer = person.data(URL, id=global_id(version), format=format, split=split)
    return answer["datasetVersion"]["downloadUrl"]


def fetch(url: str, link: str, method: str = "GET") -> httpx.Response:
    return httpx.request(method, url + urlsplit(link).path, trust_env=False)


def test_a_link_gives_the_rows_and_needs_no_token(ada: Person, version: DatasetVersion, url: str) -> None:
    address = link(ada, version)
    assert address.startswith(f"{django_settings.PUBLIC_URL}/downloads/")
    answer = fetch(url, address)
    assert answer.status_code == 200
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) == 40 and all({"prompt": r["prompt"], "completion": r["completion"]} in ROWS for r in rows)
    assert answer.headers["content-type"] == "application/jsonl; charset=utf-8"
    assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
    assert answer.headers["cache-control"] == "no-store"
    name = "F%C3%BC%C3%9Fe-und-so-v1.jsonl"
    assert answer.headers["content-disposition"] == f"attachment; filename*=utf-8''{name}"
    test = fetch(url, link(ada, version, "CSV", "TEST"))
    assert len(test.text.split('"\r\n"')) == 1 + 10
    assert test.headers["content-disposition"].endswith("so-v1-test.csv")
    head = fetch(url, address, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-disposition"] == answer.headers["content-disposition"]
    assert fetch(url, address, "POST").status_code == 405


def test_there_is_no_link_to_what_is_not_there(ada: Person, version: DatasetVersion, url: str) -> None:
    assert link(ada, make_version(ada, status="RUNNING")) is None
    address = link(ada, version)
    with operator():
        delete_dataset(actor=ada.principal, dataset=version.dataset)
    assert link(ada, version) is None
    assert (fetch(url, address).status_code, fetch(url, address).json()["code"]) == (404, "NOT_FOUND")


def test_files_that_go_between_the_look_and_the_reading_are_not_found(
    ada: Person, version: DatasetVersion, url: str
) -> None:
    address = link(ada, version)
    blobs.delete_tree(version.artefacts)
    assert (fetch(url, address).status_code, fetch(url, address).json()["code"]) == (404, "NOT_FOUND")


def test_a_link_expires_and_cannot_be_made(
    ada: Person, version: DatasetVersion, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = link(ada, version)
    token = address.rpartition("/")[2]
    assert timedelta(minutes=10) >= signed_links.LIFETIME
    charlie = make_person("Charlie")
    ours = [str(version.organization_id), str(version.pk), "JSONL", "", ada.principal.name]
    refused = [
        *(token[:-1], token + "x", "", "x", "%F0%9F", str(version.pk)),
        signing.dumps(ours, salt="datasets.link.reports"),
        signed_links.url_of(exports.PURPOSE, ours[:4]).rpartition("/")[2],
        # of the right maker, for another organization
        signed_links.url_of(exports.PURPOSE, [str(charlie.organization.pk), *ours[1:]]).rpartition("/")[2],
    ]
    for wrong in refused:
        answer = fetch(url, f"/downloads/{wrong}")
        assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND"), wrong
    later = time.time() + signed_links.LIFETIME.total_seconds()
    with monkeypatch.context() as patch:
        patch.setattr(signing.time, "time", lambda: later - 5)
        assert exports.named_in(token) is not None
        patch.setattr(signing.time, "time", lambda: later + 1)
        assert exports.named_in(token) is None


def test_whoever_takes_the_rows_is_in_the_audit_log(ada: Person, version: DatasetVersion, url: str) -> None:
    """Whom the link was made for, and where it was followed from: once while it lasts, also for who goes on."""
    rows, table = link(ada, version), link(ada, version, "CSV", "TEST")
    fetch(url, rows, "HEAD")
    fetch(url, rows + "x")
    assert noted(ada) == []
    with ThreadPoolExecutor(4) as pool:
        assert {answer.status_code for answer in pool.map(lambda _: fetch(url, rows), range(8))} == {200}
    for address in (table, rows):
        assert fetch(url, address).status_code == 200
    told = (ada.principal.name, f"version:{version.pk}", "127.0.0.1")
    assert noted(ada) == [(*told, {"format": "JSONL", "split": "ALL"}), (*told, {"format": "CSV", "split": "TEST"})]
    with operator():
        assert list(audit.verify(ada.organization.pk)) == []


def test_whoever_waits_to_be_noted_holds_up_no_other_download(
    ada: Person, version: DatasetVersion, url: str, tmp_path: Path
) -> None:
    ben = make_person("Ben")
    hers, his = link(ada, version), link(ben, version_of(ben, tmp_path))
    with ThreadPoolExecutor(2) as pool:
        with operator():
            audit.hold(ada.organization.pk)
            waiting = [pool.submit(fetch, url, hers) for _ in range(2)]
            assert soon(lambda: _waits_for_the_log() == 2)
            assert fetch(url, his).status_code == 200
            assert not any(each.done() for each in waiting)
        assert [each.result().status_code for each in waiting] == [200, 200]


def _waits_for_the_log() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # who connects after the first look is not seen
        cursor.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"
        )
        return int(cursor.fetchone()[0])


def noted(person: Person) -> list[tuple[str, str, str, dict[str, str]]]:
    with operator():
        entries = AuditEntry.objects.filter(organization_id=person.organization.pk, action="version.download")
        return list(entries.order_by("sequence").values_list("actor", "target", "address", "details"))


def test_nobody_else_gets_a_link(version: DatasetVersion) -> None:
    charlie = make_person("Charlie")
    assert charlie.data(URL, id=global_id(version), format="CSV", split=None) == {"datasetVersion": None}


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every export is without an end, and says so when it is closed."""
    said: list[str] = []

    def pieces(*_: Any) -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            said.append("closed")

    monkeypatch.setattr(route, "export", pieces)
    return said


def hanging(url: str, address: str) -> socket.socket:
    """A reader that takes the first bytes, and no more."""
    parts = urlsplit(url)
    reader = socket.create_connection((parts.hostname, parts.port))
    reader.sendall(f"GET {urlsplit(address).path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert reader.recv(12) == b"HTTP/1.1 200"
    return reader


def test_who_reads_slowly_or_goes_away_holds_up_nobody(
    ada: Person, version: DatasetVersion, url: str, endless: list[str]
) -> None:
    address = link(ada, version)
    readers = [hanging(url, address) for _ in range(places.MAX_OF_ONE_ORGANIZATION)]
    answer = fetch(url, address)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "BUSY", "5")
    assert httpx.get(f"{url}/readyz", trust_env=False).json() == {"status": "ok"}
    assert fetch(url, link(ada, version), "HEAD").status_code == 200
    assert endless == []
    for reader in readers:
        reader.close()
    assert soon(lambda: endless == ["closed"] * len(readers))
    hanging(url, address).close()


def test_who_takes_nothing_for_long_is_cut_off_and_sees_that_it_is_not_all(
    ada: Person, version: DatasetVersion, url: str, endless: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(route, "STALLED_S", 0.3)
    with hanging(url, link(ada, version)) as reader:
        assert soon(lambda: endless == ["closed"])
        received = b""
        while block := reader.recv(1 << 20):
            received += block
    assert received and not received.endswith(b"0\r\n\r\n")


def test_what_breaks_on_the_way_is_no_whole_file(
    ada: Person, version: DatasetVersion, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pieces(*_: Any) -> Iterator[bytes]:
        yield b"first"
        raise OSError("the disk is gone")

    monkeypatch.setattr(route, "export", pieces)
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(url, link(ada, version))
