"""A dataset is deleted: its bytes go, its rows stay, and nothing that needs it is surprised."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import pytest
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection

from accounts.models import AuditEntry, Role
from common import blobs
from common.errors import Invalid
from common.ownership import as_owner
from common.tenancy import operator, tenant
from datasets import actions as dataset_actions
from datasets.deletion import remove_bytes_of_deleted_datasets
from datasets.models import Dataset, DatasetVersion, Hold, Upload
from datasets.pipeline.recipe import Recipe
from tests.accounts.ledger import entries
from tests.accounts.locks import in_another_thread
from tests.cast import Person, make_person
from tests.rows import global_id, make_dataset, make_run, make_upload, make_version
from training import actions as training_actions
from training.models import TrainingRun
from training.trainer.config import TrainingConfig

pytestmark = pytest.mark.django_db(transaction=True)

DELETE = """mutation ($id: ID!) { deleteDataset(id: $id) {
  ... on Done { ok } ... on OperationInfo { messages { kind code message } } } }"""
DATASET = "query ($id: ID!) { dataset(id: $id) { name deletedAt latestVersion { status preview { text } } } }"
RUN = "query ($id: ID!) { trainingRun(id: $id) { datasetVersion { number dataset { name deletedAt } } } }"
LIST = "{ datasets { edges { node { name } } } }"
PROCESS = """mutation ($id: ID!) { processDataset(input: {datasetId: $id}) {
  ... on DatasetVersion { number } ... on OperationInfo { messages { code field } } } }"""
CREATE = """mutation ($upload: ID!) { createDataset(input: {name: "Again", uploadId: $upload}) {
  ... on DatasetVersion { status dataset { id } } ... on OperationInfo { messages { code field } } } }"""
START = """mutation ($id: ID!) { startTrainingRun(input: {datasetVersionId: $id}) {
  ... on TrainingRun { name } ... on OperationInfo { messages { code field } } } }"""
LOOK = """query ($id: ID!) { datasetVersion(id: $id) {
  preview { text } rejections { totalCount edges { cursor } pageInfo { hasNextPage } } } }"""
CANCEL = "mutation ($id: ID!) { cancelTrainingRun(id: $id) { ... on TrainingRun { status } } }"
DONE = {"deleteDataset": {"ok": True}}


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def stored_version(person: Person, dataset: Dataset | None = None, **fields: Any) -> DatasetVersion:
    """A version with a file in storage, and in the ledger."""
    version = make_version(person, dataset, size_bytes=7, **fields)
    prefix = f"{version.artefacts}/0001"
    default_storage.save(f"{prefix}/train-00000.parquet", ContentFile(b"1234567"))
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(storage_prefix=prefix)
        stored: DatasetVersion = DatasetVersion.objects.select_related("dataset", "upload").get(pk=version.pk)
        stored.ended()
    return stored


def delete(person: Person, dataset: Dataset) -> dict[str, Any]:
    return person.data(DELETE, id=global_id(dataset))


def refusal(answer: dict[str, Any]) -> dict[str, Any]:
    (payload,) = answer.values()
    (message,) = payload["messages"]
    return message


def files() -> list[str]:
    return sorted(path.name for path in Path(settings.STORAGE_ROOT).rglob("*") if path.is_file())


def names(person: Person) -> list[str]:
    return [edge["node"]["name"] for edge in person.data(LIST)["datasets"]["edges"]]


def fresh(row: Any) -> Any:
    with operator():
        return type(row).objects.get(pk=row.pk)


def test_its_bytes_go_and_its_rows_stay(ada: Person) -> None:
    version = stored_version(ada)
    run = make_run(ada, version, status="SUCCEEDED")
    kept = stored_version(ada, make_dataset(ada, "Kept"))
    assert len(files()) == 4  # two versions', and two uploads'
    assert delete(ada, version.dataset) == DONE

    assert names(ada) == ["Kept"]
    shown = ada.data(DATASET, id=global_id(version.dataset))["dataset"]
    assert shown["deletedAt"] is not None
    assert shown["latestVersion"] == {"status": "SUCCEEDED", "preview": []}
    of_the_run = ada.data(RUN, id=global_id(run))["trainingRun"]["datasetVersion"]
    assert of_the_run == {"number": 1, "dataset": {"name": "Snippets", "deletedAt": shown["deletedAt"]}}
    with operator():
        entry = AuditEntry.objects.get()
    assert (entry.actor, entry.action, entry.target) == (
        f"user:{ada.user.pk}",
        "dataset.delete",
        f"dataset:{version.dataset_id}",
    )

    remove_bytes_of_deleted_datasets()
    assert len(files()) == 2
    assert default_storage.exists(f"{kept.storage_prefix}/train-00000.parquet")
    assert default_storage.exists(fresh(kept.upload).storage_key)
    assert set(entries(ada)) == {("STORAGE_BYTES", kept.usage_key)}
    assert fresh(version.dataset).bytes_removed_at is not None
    assert delete(ada, version.dataset) == DONE  # again: it is
    with operator():
        assert AuditEntry.objects.count() == 1


def test_an_upload_stays_while_another_dataset_was_made_from_it(ada: Person) -> None:
    first = stored_version(ada)
    second = stored_version(ada, make_dataset(ada, "Second"))
    with operator():
        DatasetVersion.objects.filter(pk=second.pk).update(upload=first.upload)
    delete(ada, first.dataset)
    remove_bytes_of_deleted_datasets()
    key = fresh(first.upload).storage_key
    assert default_storage.exists(key)
    delete(ada, second.dataset)
    remove_bytes_of_deleted_datasets()
    assert not default_storage.exists(key)
    assert fresh(first.upload).storage_key == ""


def test_a_run_that_has_not_ended_keeps_it(ada: Person) -> None:
    version = stored_version(ada, fingerprint="a" * 64)
    assert ada.data(START, id=global_id(version)) == {"startTrainingRun": {"name": "Snippets v1"}}
    message = refusal(delete(ada, version.dataset))
    assert (message["kind"], message["code"]) == ("ERROR", "DATASET_IN_USE")
    assert message["message"] == ("In use by training run Snippets v1. Wait until they have ended, or cancel them.")
    assert (fresh(version.dataset).deleted_at, names(ada)) == (None, ["Snippets"])
    with operator():
        run = TrainingRun.objects.get()
    ada.data(CANCEL, id=global_id(run))
    with operator():
        assert not Hold.objects.exists()
    assert delete(ada, version.dataset) == DONE


def test_a_version_that_is_being_made_keeps_it(ada: Person) -> None:
    dataset = make_dataset(ada)
    make_version(ada, dataset, status="QUEUED")
    for _ in range(5):
        make_version(ada, dataset, status="RUNNING")
    message = refusal(delete(ada, dataset))
    assert message["code"] == "DATASET_IN_USE"
    assert message["message"].startswith("In use by version 1, which is being made; version 2, which is being made; ")
    assert message["message"].endswith(", and 1 more. Wait until they have ended, or cancel them.")
    assert fresh(dataset).deleted_at is None


@pytest.mark.parametrize("role", [Role.MEMBER, Role.VIEWER])
def test_members_do_not_delete(ada: Person, role: Role) -> None:
    version = stored_version(ada)
    ben = make_person("Ben", ada.organization, role)
    message = refusal(delete(ben, version.dataset))
    assert (message["kind"], message["code"]) == ("PERMISSION", "NOT_ALLOWED")
    assert fresh(version.dataset).deleted_at is None
    remove_bytes_of_deleted_datasets()
    assert len(files()) == 2


def test_nothing_is_made_of_what_was_deleted(ada: Person) -> None:
    upload = make_upload(ada, b'{"text": "x"}\n')
    made = ada.data(CREATE, upload=global_id(upload))["createDataset"]
    with operator():
        DatasetVersion.objects.update(status="SUCCEEDED")
        version = DatasetVersion.objects.select_related("dataset").get()

    again = ada.data(CREATE, upload=global_id(upload))["createDataset"]

    assert again["dataset"] == made["dataset"]  # the same bytes and recipe
    delete(ada, version.dataset)

    assert refusal(ada.data(PROCESS, id=global_id(version.dataset))) == {
        "code": "DATASET_DELETED",
        "field": "datasetId",
    }
    assert refusal(ada.data(START, id=global_id(version))) == {"code": "DATASET_DELETED", "field": "datasetVersionId"}
    with operator():
        assert (TrainingRun.objects.count(), Hold.objects.count()) == (0, 0)
    new = ada.data(CREATE, upload=global_id(upload))["createDataset"]
    assert new["status"] == "QUEUED" and new["dataset"] != made["dataset"]

    other = stored_version(ada, make_dataset(ada, "Other"))
    delete(ada, other.dataset)
    remove_bytes_of_deleted_datasets()
    gone = refusal(ada.data(CREATE, upload=global_id(other.upload)))
    assert gone == {"code": "UPLOAD_DELETED", "field": "uploadId"}
    assert fresh(upload).storage_key  # the new version is made from it


def test_a_run_that_begins_at_the_same_moment_comes_before_or_after(ada: Person) -> None:
    version = stored_version(ada)
    principal = ada.principal

    def delete_it() -> str:
        with tenant(principal):
            try:
                dataset_actions.delete_dataset(actor=principal, dataset=version.dataset)
            except dataset_actions.DatasetInUse as error:
                return error.code
        return "deleted"

    def start_one() -> str:
        with tenant(principal):
            try:
                training_actions.start_run(
                    actor=principal, version=version, base_model=None, name="Race", config=TrainingConfig()
                )
            except Invalid as error:
                return error.code
        return "started"

    with in_another_thread() as begin:
        with tenant(principal):
            training_actions.start_run(
                actor=principal, version=version, base_model=None, name="First", config=TrainingConfig()
            )
            deleting = begin(delete_it)
        assert deleting.result(10) == "DATASET_IN_USE"
    with operator():
        Hold.objects.all().delete()
    with in_another_thread() as begin:
        with tenant(principal):
            dataset_actions.delete_dataset(actor=principal, dataset=version.dataset)
            starting = begin(start_one)
        assert starting.result(10) == "DATASET_DELETED"


def test_a_version_that_is_asked_for_while_an_upload_is_forgotten_finds_it_whole_or_gone(ada: Person) -> None:
    version = stored_version(ada)
    upload, principal = version.upload, ada.principal
    delete(ada, version.dataset)
    with in_another_thread() as begin:
        with tenant(principal):
            dataset_actions.create_dataset(
                actor=principal,
                organization_id=ada.organization.pk,
                name="New",
                upload=upload,
                recipe=Recipe(),
            )
            forgetting = begin(remove_bytes_of_deleted_datasets)
        forgetting.result(10)
    assert default_storage.exists(fresh(upload).storage_key)


def test_whoever_looks_into_a_dataset_while_it_is_deleted_sees_nothing(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = {"reasons": [{"key": "TOO_SHORT", "count": 3}]}
    version, really = stored_version(ada, steps=[dropped]), blobs.open_read

    def delete_it() -> None:
        try:
            delete(ada, version.dataset)
            remove_bytes_of_deleted_datasets()
        finally:
            connection.close()

    def open_read(blob_key: str) -> IO[bytes]:
        with ThreadPoolExecutor(1) as other:
            other.submit(delete_it).result(10)
        return really(blob_key)

    with monkeypatch.context() as patched:  # between the row and the file
        patched.setattr(blobs, "open_read", open_read)
        seen = ada.data(LOOK, id=global_id(version))["datasetVersion"]
    assert seen == {"preview": [], "rejections": {"totalCount": 0, "edges": [], "pageInfo": {"hasNextPage": False}}}
    assert files() == []


def test_a_file_that_is_lost_is_no_deletion(ada: Person) -> None:
    version = stored_version(ada)
    default_storage.delete(f"{version.storage_prefix}/train-00000.parquet")
    (error,) = ada.ask(LOOK, id=global_id(version))["errors"]
    assert error["extensions"]["code"] == "INTERNAL"


def test_storage_that_fails_for_one_holds_up_no_other(ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, other = stored_version(ada), stored_version(ada, make_dataset(ada, "Other"))
    for version in (broken, other):
        delete(ada, version.dataset)
    really = blobs.delete_tree

    def delete_tree(prefix: str) -> None:
        if prefix == broken.artefacts:
            raise PermissionError(prefix)
        really(prefix)

    with monkeypatch.context() as patched:
        patched.setattr(blobs, "delete_tree", delete_tree)
        remove_bytes_of_deleted_datasets()
    assert (fresh(broken.dataset).bytes_removed_at, fresh(other.dataset).bytes_removed_at is None) == (None, False)
    assert ("STORAGE_BYTES", broken.usage_key) in entries(ada)
    remove_bytes_of_deleted_datasets()
    assert files() == []


def test_runs_under_way_hold_their_versions_when_an_older_installation_migrates(ada: Person) -> None:
    queued, running = make_run(ada, name="Queued"), make_run(ada, status="RUNNING")
    make_run(ada, status="FAILED")
    with as_owner(), connection.cursor() as cursor:
        (step,) = import_module("training.migrations.0005_holds").Migration.operations
        for statement in step.sql:
            cursor.execute(statement)
    with operator():
        held = set(Hold.objects.values_list("holder", "version_id", "label"))
    assert held == {
        (queued.usage_key, queued.dataset_version_id, "training run Queued"),
        (running.usage_key, running.dataset_version_id, "training run First"),
    }


def test_uploads_are_rows_that_stay(ada: Person) -> None:
    version = stored_version(ada)
    delete(ada, version.dataset)
    remove_bytes_of_deleted_datasets()
    with operator():
        assert Upload.objects.filter(pk=version.upload_id).exists()
