"""Rows are added to a dataset: what the new version has, what it is charged, what the trainer gets, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from django.conf import settings
from django.utils.timezone import now

from common.jobs import Lease
from common.tenancy import operator
from datasets.deletion import remove_bytes_of_deleted_datasets
from datasets.exports import count_rows, export
from datasets.models import Dataset, DatasetVersion, Upload, VersionReport
from datasets.pipeline.stored.export import ExportFormat
from datasets.reporting import prepare
from datasets.tasks import work
from tests.accounts.ledger import entries
from tests.cast import Person, make_person
from tests.datasets.test_dataset_api import LOOK, PROCESS, codes, create, looked_at, rejections
from tests.rows import global_id, make_dataset, make_upload, make_version
from training.executors.local import _fetch_splits

pytestmark = pytest.mark.django_db(transaction=True)

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "then",
    "sees",
    "that",
    "nobody",
    "was",
    "looking",
    "at",
    "it",
]
OLD = [{"prompt": f"def f{number}(x):", "completion": f"    return {number} + x"} for number in range(40)]
NEW = [{"prompt": f"def g{number}(y):", "completion": f"    return y - {number}"} for number in range(15)]
DELETE = "mutation ($id: ID!) { deleteDataset(id: $id) { ... on Done { ok } } }"
CANCEL = "mutation ($id: ID!) { cancelDatasetVersion(id: $id) { __typename } }"
REJECTIONS = """query ($id: ID!) { datasetVersion(id: $id) {
  rejections { totalCount edges { node { line reason uploadSha256 } } } } }"""
PARENT = "query ($id: ID!) { datasetVersion(id: $id) { parent { id number } } }"


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def upload(person: Person, rows: list[Any]) -> Upload:
    return make_upload(person, "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode())


def made(person: Person, rows: list[Any] = OLD, **fields: Any) -> tuple[Dataset, DatasetVersion]:
    """A dataset with a finished version, by the real pipeline."""
    create(person, upload(person, rows), **fields)
    work()
    with operator():
        version = DatasetVersion.objects.select_related("dataset", "upload").latest("created_at")
    assert version.status == "SUCCEEDED"
    return version.dataset, version


def append(person: Person, dataset: Dataset, sent: Upload | None, **fields: Any) -> dict[str, Any]:
    upload_id = {"uploadId": global_id(sent)} if sent else {}
    given = {"datasetId": global_id(dataset), "append": True, **upload_id, **fields}
    return person.data(PROCESS, input=given)["processDataset"]


def versions(dataset: Dataset) -> list[DatasetVersion]:
    with operator():
        return list(
            DatasetVersion.objects.filter(dataset=dataset).select_related("parent", "upload").order_by("number")
        )


def files() -> list[Path]:
    return sorted(path for path in Path(settings.STORAGE_ROOT).rglob("*") if path.is_file())


def test_the_new_version_has_the_rows_of_both_and_is_charged_what_it_adds(ada: Person) -> None:
    dataset, first = made(ada, [*OLD, "{", OLD[0]])
    before = files()
    sent = upload(ada, ["[]", *NEW, OLD[1], NEW[0]])
    queued = append(ada, dataset, sent)
    assert (queued["number"], queued["status"]) == (2, "QUEUED")
    assert queued["fingerprint"] != first.fingerprint
    work()
    seen = looked_at(ada, queued)
    assert (seen["status"], seen["rowsIn"], seen["rowsKept"]) == ("SUCCEEDED", 60, 55)
    assert ada.data(PARENT, id=queued["id"])["datasetVersion"]["parent"] == {"id": global_id(first), "number": 1}
    assert sum(split["rows"] for split in seen["splits"]) == 55
    assert [step["rowsIn"] for step in seen["steps"]] == [60, 58, 58, 58, 55, 55, 55, 55, 55]

    page = ada.data(REJECTIONS, id=queued["id"])["datasetVersion"]["rejections"]
    uploads = [first.upload.sha256] * 2 + [sent.sha256] * 3
    assert [edge["node"]["uploadSha256"] for edge in page["edges"]] == uploads
    assert [(edge["node"]["line"], edge["node"]["reason"]) for edge in page["edges"]] == [
        *((41, "NOT_JSON"), (42, "DUPLICATE")),
        *((1, "NOT_AN_OBJECT"), (17, "DUPLICATE"), (18, "DUPLICATE")),
    ]
    assert page["totalCount"] == 5
    half = rejections(ada, queued, first=3)
    assert half["pageInfo"]["hasNextPage"] is True
    rest = rejections(ada, queued, first=3, after=half["pageInfo"]["endCursor"])
    assert [edge["node"]["line"] for edge in (*half["edges"], *rest["edges"])] == [41, 42, 1, 17, 18]
    assert [edge["node"]["line"] for edge in rejections(ada, queued, reason="DUPLICATE")["edges"]] == [42, 17, 18]

    preview = ada.data(LOOK.replace("first: 2", "first: 100"), id=queued["id"])["datasetVersion"]["preview"]
    train = next(split["rows"] for split in seen["splits"] if split["name"] == "TRAIN")
    assert len(preview) == train
    assert {row["uploadSha256"] for row in preview} == {first.upload.sha256, sent.sha256}

    second = versions(dataset)[1]
    added = sum(path.stat().st_size for path in files() if path not in before and second.artefacts in str(path))
    assert seen["sizeBytes"] == entries(ada)["STORAGE_BYTES", second.usage_key] == added
    assert set(before) <= set(files())


def test_the_trainer_gets_the_rows_of_both(ada: Person, tmp_path: Path) -> None:
    dataset, _ = made(ada)
    append(ada, dataset, upload(ada, NEW))
    work()
    found = _fetch_splits(versions(dataset)[1], tmp_path / "data")
    rows = [row for paths in found.values() for path in paths for row in pq.read_table(path).to_pylist()]
    assert sorted(row["prompt"] for row in rows) == sorted(row["prompt"] for row in (*OLD, *NEW))


def test_an_export_has_the_rows_of_both(ada: Person) -> None:
    dataset, _ = made(ada)
    append(ada, dataset, upload(ada, NEW))
    work()
    version = versions(dataset)[1]
    with operator():
        rows = [json.loads(line) for line in b"".join(export(version, None, ExportFormat.JSONL)).splitlines()]
        assert count_rows(version, None) == 55
    assert sorted(row["prompt"] for row in rows) == sorted(row["prompt"] for row in (*OLD, *NEW))


def test_a_report_is_made_of_the_rows_of_both(ada: Person, tmp_path: Path) -> None:
    dataset, _ = made(ada)
    append(ada, dataset, upload(ada, NEW))
    work()
    appended = versions(dataset)[1]
    with operator():
        version = DatasetVersion.objects.select_related("dataset").get(pk=appended.pk)
    report = VersionReport(organization_id=version.organization_id, version=version)
    prepare(report, Lease(VersionReport, report.pk, report.organization_id, 1, 1), tmp_path)
    rows = [row for path in (tmp_path / "version").iterdir() for row in pq.read_table(path).to_pylist()]
    assert sorted(row["prompt"] for row in rows) == sorted(row["prompt"] for row in (*OLD, *NEW))


def test_the_same_append_again_is_the_same_version_and_no_work(ada: Person) -> None:
    dataset, first = made(ada)
    sent = upload(ada, NEW)
    queued = append(ada, dataset, sent)
    assert append(ada, dataset, sent)["id"] == queued["id"]  # on its way
    work()
    assert append(ada, dataset, sent)["id"] == queued["id"]
    assert append(ada, dataset, upload(ada, NEW))["id"] == queued["id"]  # the same bytes in another upload
    assert append(ada, dataset, first.upload)["id"] == queued["id"]
    later = append(ada, dataset, upload(ada, [{"prompt": "other", "completion": "row"}]))
    work()
    assert later["number"] == 3
    assert append(ada, dataset, sent)["id"] == later["id"]
    assert [version.parent_id for version in versions(dataset)] == [None, *(one.pk for one in versions(dataset)[:2])]
    assert len(versions(dataset)) == 3


def test_what_failed_or_was_cancelled_is_no_part_of_it(ada: Person) -> None:
    dataset, first = made(ada)
    failed = append(ada, dataset, upload(ada, []))
    work()
    assert looked_at(ada, failed)["errorCode"] == "EMPTY_FILE"
    ada.data(CANCEL, id=append(ada, dataset, upload(ada, NEW[:3]))["id"])
    work()
    third = append(ada, dataset, upload(ada, NEW))
    work()
    assert looked_at(ada, third)["rowsKept"] == 55
    assert versions(dataset)[-1].parent_id == first.pk


def test_the_recipe_is_the_latest_versions(ada: Person) -> None:
    dataset, _ = made(ada, recipe={"pii": "KEEP", "minCharacters": 3})
    sent = upload(
        ada, [{"prompt": "write to", "completion": "grace.hopper@navy.mil"}, {"prompt": "p", "completion": "c"}]
    )
    refused = append(ada, dataset, sent, recipe={"pii": "MASK"})
    assert codes(refused) == [("VALIDATION", "APPEND_RECIPE_DIFFERS", "recipe")]
    assert refused["messages"][0]["message"] == (
        "Version 1 was made with another recipe: min_characters, pii differs. Leave the recipe out to add rows with its own, "
        "or make a version of all rows with this one."
    )
    assert len(versions(dataset)) == 1
    queued = append(ada, dataset, sent, recipe={"pii": "KEEP", "minCharacters": 3})
    work()
    seen = looked_at(ada, queued)
    assert (seen["rowsKept"], seen["recipe"]["pii"], seen["recipe"]["minCharacters"]) == (41, "KEEP", 3)
    later = append(ada, dataset, upload(ada, NEW))
    work()
    assert looked_at(ada, later)["recipe"]["minCharacters"] == 3


def test_what_cannot_be_added_to_is_refused_with_words(ada: Person) -> None:
    sent = upload(ada, NEW)
    empty = make_dataset(ada, "Empty")
    assert codes(append(ada, empty, sent)) == [("VALIDATION", "NO_VERSION", "append")]
    old = make_version(ada)
    assert codes(append(ada, old.dataset, sent)) == [("VALIDATION", "APPEND_NEEDS_NEW_VERSION", "append")]
    dataset, _ = made(ada)
    assert codes(append(ada, dataset, None)) == [("VALIDATION", "UPLOAD_REQUIRED", "uploadId")]
    with operator():
        waiting = Upload.objects.create(organization=ada.organization, file_name="a", size_bytes=5)
    assert codes(append(ada, dataset, waiting)) == [("VALIDATION", "UPLOAD_INCOMPLETE", "uploadId")]
    with operator():
        DatasetVersion.objects.filter(dataset=dataset).update(pipeline_version=1)
    assert codes(append(ada, dataset, sent)) == [("VALIDATION", "APPEND_NEEDS_NEW_VERSION", "append")]
    assert len(versions(dataset)) == 1


def test_while_the_latest_version_is_made_nothing_is_added(ada: Person) -> None:
    dataset, _ = made(ada)
    queued = append(ada, dataset, upload(ada, NEW))
    assert codes(append(ada, dataset, upload(ada, NEW[:4]))) == [("VALIDATION", "VERSION_NOT_READY", "append")]
    work()
    assert looked_at(ada, queued)["status"] == "SUCCEEDED"
    assert append(ada, dataset, upload(ada, NEW[:4]))["number"] == 3


def test_a_version_that_is_being_cancelled_is_no_answer(ada: Person) -> None:
    dataset, _ = made(ada)
    sent = upload(ada, NEW)
    queued = append(ada, dataset, sent)
    pk = versions(dataset)[1].pk
    with operator():
        DatasetVersion.objects.filter(pk=pk).update(status="RUNNING", cancel_requested_at=now())
    assert codes(append(ada, dataset, sent)) == [("VALIDATION", "VERSION_NOT_READY", "append")]
    with operator():
        DatasetVersion.objects.filter(pk=pk).update(status="CANCELLED")
    again = append(ada, dataset, sent)
    assert (again["number"], again["status"]) == (3, "QUEUED") and again["id"] != queued["id"]


def test_the_last_upload_alone_is_not_taken_for_all_of_them(ada: Person) -> None:
    dataset, _ = made(ada)
    append(ada, dataset, upload(ada, NEW))
    work()
    alone = {"datasetId": global_id(dataset), "recipe": {"minCharacters": 2}}
    refused = ada.data(PROCESS, input=alone)["processDataset"]
    assert codes(refused) == [("VALIDATION", "UPLOAD_REQUIRED", "uploadId")]
    assert "Version 2 has the rows of several uploads: " in refused["messages"][0]["message"]
    assert len(versions(dataset)) == 2
    first = global_id(versions(dataset)[0].upload)
    assert ada.data(PROCESS, input=alone | {"uploadId": first})["processDataset"]["number"] == 3


def test_what_has_to_be_unique_is_not_known_of_rows_before(ada: Person) -> None:
    dataset, _ = made(ada, recipe={"expectations": [{"column": "prompt", "check": "UNIQUE"}]})
    refused = append(ada, dataset, upload(ada, NEW))
    assert codes(refused) == [("VALIDATION", "APPEND_NEEDS_ALL_ROWS", "append")]
    assert len(versions(dataset)) == 1


def test_all_goes_with_the_dataset(ada: Person) -> None:
    dataset, _ = made(ada)
    append(ada, dataset, upload(ada, NEW))
    work()
    assert ada.data(DELETE, id=global_id(dataset)) == {"deleteDataset": {"ok": True}}
    remove_bytes_of_deleted_datasets()
    assert files() == []
    assert entries(ada) == {}
    assert codes(append(ada, dataset, upload(ada, NEW))) == [("VALIDATION", "DATASET_DELETED", "datasetId")]


@pytest.mark.parametrize("damage", ["shortened", "missing"])
def test_a_parent_whose_files_are_not_whole_is_told(ada: Person, damage: str) -> None:
    dataset, first = made(ada)
    path = Path(settings.STORAGE_ROOT) / first.storage_prefix / "index-keys.npy"
    whole = path.read_bytes()
    path.unlink()
    if damage == "shortened":
        path.write_bytes(whole[:-1])
    queued = append(ada, dataset, upload(ada, NEW))
    work()
    assert looked_at(ada, queued)["errorCode"] == "DATA_CORRUPT"


def test_what_is_stored_is_only_read(ada: Person) -> None:
    dataset, _ = made(ada)
    before = {path: path.read_bytes() for path in files()}
    append(ada, dataset, upload(ada, NEW))
    work()
    assert {path: path.read_bytes() for path in before} == before
