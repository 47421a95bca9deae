"""Storage: an upload takes its place before it is sent, a version when it is made, and no more fits than is allowed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection
from django.db.models import F
from django.test import Client

from accounts.models import UsageEntry
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Upload
from datasets.tasks import work
from tests.accounts.ledger import allow, entries, used
from tests.cast import Person, make_person
from tests.datasets.test_dataset_api import CONTENT as ROWS
from tests.datasets.test_uploads import CONTENT, put, send
from tests.rows import global_id, make_upload, make_version

TOO_MUCH = "__typename ... on QuotaExceeded { quota code message limit used resetsAt }"
START = f"""mutation ($input: StartUploadInput!) {{ answer: startUpload(input: $input) {{
  {TOO_MUCH} ... on UploadTicket {{ url upload {{ id }} }} }} }}"""
CREATE = f"mutation ($input: CreateDatasetInput!) {{ answer: createDataset(input: $input) {{ {TOO_MUCH} ... on DatasetVersion {{ id }} }} }}"
PROCESS = CREATE.replace("CreateDatasetInput", "ProcessDatasetInput").replace("createDataset", "processDataset")
CANCEL = "mutation ($id: ID!) { cancelDatasetVersion(id: $id) { __typename } }"

# bytes are received in threads that have connections of their own
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def start(person: Person, size: int) -> dict[str, Any]:
    return person.data(START, input={"fileName": "rows.jsonl", "sizeBytes": size})["answer"]


def stored(person: Person) -> int:
    return used(person).storage_bytes


def refused(limit: int, used: int) -> dict[str, Any]:
    return {
        "__typename": "QuotaExceeded",
        "quota": "storageBytes",
        "code": "QUOTA_EXCEEDED",
        "message": f"Your organization may store {limit:,} bytes and has {used:,}. "
        "Ask the operators of the platform for more.",
        "limit": limit,
        "used": used,
        "resetsAt": None,
    }


def test_an_upload_too_large_for_what_is_left_is_refused_and_leaves_nothing(ada: Person) -> None:
    allow(ada, storage_bytes=3_000_000_000)
    assert start(ada, 2_000_000_000)["__typename"] == "UploadTicket"
    assert start(ada, 1_000_000_001) == refused(3_000_000_000, 2_000_000_000)
    with operator():
        assert Upload.objects.count() == 1
    assert start(ada, 1_000_000_000)["__typename"] == "UploadTicket"
    assert stored(ada) == 3_000_000_000


def test_of_many_at_once_as_many_get_a_ticket_as_fit(ada: Person) -> None:
    allow(ada, storage_bytes=39)
    begin = threading.Barrier(8)

    def ask() -> str:
        begin.wait()
        try:
            return start(replace(ada, client=Client()), 10)["__typename"]
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as clients:
        answers = [asked.result() for asked in [clients.submit(ask) for _ in range(8)]]
    assert sorted(answers) == ["QuotaExceeded"] * 5 + ["UploadTicket"] * 3
    with operator():
        assert Upload.objects.count() == 3
    assert stored(ada) == 30


def test_an_upload_keeps_its_place_from_its_ticket_on(ada: Person) -> None:
    ticket = start(ada, len(CONTENT))
    assert stored(ada) == len(CONTENT)
    assert put(ticket, CONTENT[:7], cut=True) is None
    assert (put(ticket, CONTENT + b"x") or (0,))[0] == 400
    assert stored(ada) == len(CONTENT)  # it may be sent again
    assert (put(ticket, CONTENT) or (0,))[0] == 201
    with operator():
        entry, upload = UsageEntry.objects.get(), Upload.objects.get()
    assert (entry.key, entry.amount, entry.lapses_at) == (f"upload:{upload.pk}", len(CONTENT), None)


def let_expire() -> None:
    with operator():
        day = timedelta(hours=25)
        Upload.objects.update(created_at=F("created_at") - day, expires_at=F("expires_at") - day)
        UsageEntry.objects.update(lapses_at=F("lapses_at") - timedelta(hours=25))


def test_an_upload_that_never_came_gives_its_place_back_when_it_expires(ada: Person) -> None:
    allow(ada, storage_bytes=10)
    start(ada, 10)
    with operator():
        assert UsageEntry.objects.get().lapses_at == Upload.objects.get().expires_at
    assert start(ada, 1)["__typename"] == "QuotaExceeded"
    let_expire()
    assert start(ada, 10)["__typename"] == "UploadTicket"
    assert stored(ada) == 10


@pytest.mark.parametrize("is_removed", [False, True])
def test_an_upload_that_ends_after_its_ticket_expired_counts_all_the_same(ada: Person, is_removed: bool) -> None:
    ticket = start(ada, len(CONTENT))

    def let_go() -> None:
        let_expire()
        if is_removed:
            with operator():
                UsageEntry.objects.all().delete()
        connection.close()

    def expiring_meanwhile() -> Iterator[bytes]:
        yield CONTENT[:9]
        aside = threading.Thread(target=let_go)
        aside.start()
        aside.join()
        yield CONTENT[9:]

    assert (send(urlsplit(ticket["url"]).path, expiring_meanwhile()) or (0,))[0] == 201
    assert stored(ada) == len(CONTENT)


def test_a_version_takes_what_it_stores_and_one_that_fails_or_is_cancelled_nothing(ada: Person) -> None:
    made = ada.data(CREATE, input={"name": "Good", "uploadId": global_id(make_upload(ada, ROWS))})["answer"]
    failing = make_upload(ada, b'{"prompt": "", "completion": ""}\n')
    ada.data(CREATE, input={"name": "Bad", "uploadId": global_id(failing)})
    work()
    queued = ada.data(CREATE, input={"name": "Late", "uploadId": global_id(make_upload(ada, ROWS + b"\n"))})["answer"]
    ada.data(CANCEL, id=queued["id"])
    with operator():
        version = DatasetVersion.objects.get(status="SUCCEEDED")
        assert sorted(DatasetVersion.objects.values_list("status", flat=True)) == ["CANCELLED", "FAILED", "SUCCEEDED"]
        version.ended()
    assert made["id"] == global_id(version) and version.size_bytes
    assert entries(ada) == {("STORAGE_BYTES", f"version:{version.pk}"): version.size_bytes}


def test_where_no_storage_is_left_no_version_is_begun_and_a_finished_one_is_still_found(ada: Person) -> None:
    upload = make_upload(ada, ROWS)
    made = ada.data(CREATE, input={"name": "First", "uploadId": global_id(upload)})["answer"]
    allow(ada, storage_bytes=10)
    start(ada, 10)
    other = {"uploadId": global_id(upload), "recipe": {"minCharacters": 2}}
    with operator():
        dataset = Dataset.objects.get()
    assert ada.data(CREATE, input={"name": "Second", **other})["answer"] == refused(10, 10)
    assert ada.data(PROCESS, input={"datasetId": global_id(dataset), **other})["answer"] == refused(10, 10)
    with operator():
        assert (Dataset.objects.count(), DatasetVersion.objects.count()) == (1, 1)
    assert ada.data(CREATE, input={"name": "First", "uploadId": global_id(upload)})["answer"]["id"] == made["id"]
    allow(ada, storage_bytes=11)
    assert ada.data(CREATE, input={"name": "Second", **other})["answer"]["__typename"] == "DatasetVersion"


def test_what_one_organization_stores_leaves_others_alone(ada: Person) -> None:
    charlie = make_person("Charlie")
    allow(ada, storage_bytes=10)
    start(ada, 10)
    make_version(charlie)
    assert start(ada, 1)["__typename"] == "QuotaExceeded"
    assert start(charlie, 11)["__typename"] == "UploadTicket"
