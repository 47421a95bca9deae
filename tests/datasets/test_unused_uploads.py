"""Uploads that no dataset is made from: their owners delete them, or else they go after a week."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.files.storage import default_storage
from django.utils import timezone

from accounts.models import AuditEntry, Role
from common.tenancy import operator, tenant
from datasets import actions
from datasets.deletion import remove_unused_uploads
from datasets.models import Dataset, DatasetVersion, Upload
from datasets.pipeline.recipe import Recipe
from tests.accounts.ledger import entries
from tests.accounts.locks import in_another_thread
from tests.cast import Person, make_person
from tests.datasets.uploading import CONTENT, left_over, put, start, state, stored
from tests.rows import global_id, make_dataset, make_upload, make_version

pytestmark = pytest.mark.django_db(transaction=True)

DELETE = """mutation ($id: ID!) { deleteUpload(id: $id) {
  ... on Done { ok } ... on OperationInfo { messages { kind code message } } } }"""
CREATE = """mutation ($upload: ID!) { createDataset(input: {name: "New", uploadId: $upload}) {
  ... on DatasetVersion { status } ... on OperationInfo { messages { code message } } } }"""
DONE = {"deleteUpload": {"ok": True}}


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def arrived(person: Person) -> tuple[dict[str, Any], Upload]:
    ticket = start(person)
    answer = put(ticket, CONTENT)
    assert answer is not None and answer[0] == 201
    with operator():
        return ticket, Upload.objects.order_by("-created_at")[0]


def delete(person: Person, upload: Upload) -> dict[str, Any]:
    return person.data(DELETE, id=global_id(upload))


def refused(answer: dict[str, Any]) -> tuple[str, str]:
    (payload,) = answer.values()
    (message,) = payload["messages"]
    return message["kind"], message["code"]


def age(upload: Upload, by: timedelta) -> None:
    with operator():
        Upload.objects.filter(pk=upload.pk).update(completed_at=timezone.now() - by)


def test_its_bytes_go_at_once_and_count_no_more(ada: Person) -> None:
    _, upload = arrived(ada)
    assert entries(ada) == {("STORAGE_BYTES", upload.usage_key): len(CONTENT)}
    assert len(stored()) == 1
    assert delete(ada, upload) == DONE
    assert (stored(), entries(ada)) == ([], {})
    assert delete(ada, upload) == DONE  # again: it is
    with operator():
        (entry,) = AuditEntry.objects.all()
    assert (entry.actor, entry.action, entry.target) == (
        f"user:{ada.user.pk}",
        "upload.delete",
        f"upload:{upload.pk}",
    )
    (message,) = ada.data(CREATE, upload=global_id(upload))["createDataset"]["messages"]
    assert message == {
        "code": "UPLOAD_DELETED",
        "message": "The bytes of this upload were deleted; send the file again.",
    }
    with operator():
        assert not Dataset.objects.exists()


def test_one_that_has_not_arrived_is_given_up(ada: Person) -> None:
    ticket = start(ada)
    with operator():
        upload = Upload.objects.get()
    assert delete(ada, upload) == DONE
    assert entries(ada) == {}
    assert state(ada, ticket)["status"] == "EXPIRED"
    assert put(ticket, CONTENT) == (
        404,
        {"code": "NOT_FOUND", "message": "There is no such upload, or its ticket has expired; start another one."},
    )
    assert (stored(), left_over()) == ([], [])


def test_one_that_a_dataset_was_made_from_stays(ada: Person) -> None:
    version = make_version(ada)
    assert refused(delete(ada, version.upload)) == ("ERROR", "UPLOAD_IN_USE")
    age(version.upload, timedelta(days=30))
    remove_unused_uploads()
    assert default_storage.exists(version.upload.storage_key)
    with operator():
        assert Upload.objects.get().storage_key == version.upload.storage_key
        assert not AuditEntry.objects.exists()


def test_who_may(ada: Person) -> None:
    upload = make_upload(ada)
    vera, ben = make_person("Vera", ada.organization, Role.VIEWER), make_person("Ben", ada.organization, Role.MEMBER)
    assert refused(delete(vera, upload)) == ("PERMISSION", "NOT_ALLOWED")
    assert default_storage.exists(upload.storage_key)
    assert delete(ben, upload) == DONE
    assert not default_storage.exists(upload.storage_key)


def test_what_nobody_uses_goes_after_a_week(ada: Person) -> None:
    """The same file sent again, for one: the finished version answers for it, and is made from the first."""
    ages = (timedelta(days=7, minutes=1), timedelta(days=6, hours=23))
    (_, old), (_, young) = arrived(ada), arrived(ada)
    of_a_deleted_dataset = make_version(ada, make_dataset(ada, "Deleted"))
    with operator():
        Dataset.objects.update(deleted_at=timezone.now())
    for upload, by in zip((old, young), ages, strict=True):
        age(upload, by)
    age(of_a_deleted_dataset.upload, ages[0])
    waiting = start(ada, 7)

    remove_unused_uploads()

    assert [path.parent.name for path in stored()] == [str(young.pk)]
    with operator():
        kept = Upload.objects.get(file_name="rows.jsonl", completed_at=None)
        assert Upload.objects.count() == 4
    assert entries(ada) == {
        ("STORAGE_BYTES", young.usage_key): len(CONTENT),
        ("STORAGE_BYTES", kept.usage_key): 7,
    }
    assert state(ada, waiting)["status"] == "WAITING"


def test_a_version_that_is_asked_for_at_the_same_moment_finds_it_whole_or_gone(ada: Person) -> None:
    first, second = make_upload(ada, b"1"), make_upload(ada, b"2")
    principal = ada.principal

    def create(upload: Upload) -> None:
        actions.create_dataset(
            actor=principal, organization_id=ada.organization.pk, name="New", upload=upload, recipe=Recipe()
        )

    def delete_first() -> str:
        with tenant(principal):
            try:
                actions.delete_upload(actor=principal, upload=first)
            except actions.UploadInUse as error:
                return error.code
        return "deleted"

    def create_from_second() -> str:
        with tenant(principal):
            try:
                create(second)
            except actions.Invalid as error:
                return error.code
        return "created"

    with in_another_thread() as begin:
        with tenant(principal):
            create(first)
            deleting = begin(delete_first)
        assert deleting.result(10) == "UPLOAD_IN_USE"
    assert default_storage.exists(first.storage_key)
    with in_another_thread() as begin:
        with tenant(principal):
            actions.delete_upload(actor=principal, upload=second)
            creating = begin(create_from_second)
        assert creating.result(10) == "UPLOAD_DELETED"
    assert not default_storage.exists(second.storage_key)
    with operator():
        assert DatasetVersion.objects.count() == 1
