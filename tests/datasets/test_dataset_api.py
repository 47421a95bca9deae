"""Datasets through the API: made, processed by the real pipeline, looked into, cancelled."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test import Client

from accounts.models import Membership, Role
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Upload
from datasets.tasks import work
from tests.cast import Person, make_person
from tests.datasets.pipelines import zipped
from tests.rows import global_id, make_dataset, make_upload, make_version

VERSION = """
  id number status errorCode errorMessage fingerprint dataset { name }
"""
CREATE = f"""
mutation ($input: CreateDatasetInput!) {{ createDataset(input: $input) {{
  __typename
  ... on DatasetVersion {{ {VERSION} }}
  ... on OperationInfo {{ messages {{ kind code field message }} }}
}} }}
"""
PROCESS = CREATE.replace("CreateDatasetInput", "ProcessDatasetInput").replace("createDataset", "processDataset")
CANCEL = f"""
mutation ($id: ID!) {{ cancelDatasetVersion(id: $id) {{
  __typename
  ... on DatasetVersion {{ {VERSION} cancelRequestedAt finishedAt }}
  ... on OperationInfo {{ messages {{ kind code field }} }}
}} }}
"""
LOOK = """
query ($id: ID!) { datasetVersion(id: $id) {
  status progress errorCode errorMessage rowsIn rowsKept sizeBytes
  createdBy { email } finishedAt
  recipe { format pythonUnits columns minCharacters maxCharacters exactDedup nearDedup { threshold permutations shingleTokens }
    pii secrets bias split { train validation test seed } }
  steps { name status rowsIn rowsKept rowsDropped rowsChanged reasons { key count } seconds }
  piiFindings { key count }
  biasReport
  splits { name rows bytes }
  preview(first: 2) { prompt completion text messages line source uploadSha256 changedBy }
  rejections { totalCount edges { cursor node { source line field step reason excerpt } } pageInfo { hasNextPage } }
  events(first: 1000) { __typename sequence ... on StatusChanged { status } ... on StepProgressed { name progress } }
} }
"""
REJECTIONS = """
query ($id: ID!, $first: Int, $after: String, $reason: String) { datasetVersion(id: $id) {
  rejections(first: $first, after: $after, reason: $reason) {
    totalCount edges { cursor node { line reason } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
} }
"""
ROWS = [{"prompt": f"def f{number}(x):\n", "completion": f"    return x + {number}"} for number in range(40)]
BROKEN = ['{"prompt": "cut', "[1, 2]", json.dumps(ROWS[0]), json.dumps({"prompt": "p", "completion": ""})]
CONTENT = "\n".join([*(json.dumps(row) for row in ROWS), *BROKEN]).encode()
"""40 good rows, then lines 41 to 44: no JSON, no object, a repetition, and an empty completion."""


def create(person: Person, upload: Upload, name: str = "Snippets", **fields: Any) -> dict[str, Any]:
    return person.data(CREATE, input={"name": name, "uploadId": global_id(upload), **fields})["createDataset"]


def looked_at(person: Person, made: dict[str, Any]) -> dict[str, Any]:
    return person.data(LOOK, id=made["id"])["datasetVersion"]


def rejections(person: Person, made: dict[str, Any], **arguments: Any) -> dict[str, Any]:
    return person.data(REJECTIONS, id=made["id"], **arguments)["datasetVersion"]["rejections"]


def codes(refusal: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    assert refusal["__typename"] == "OperationInfo", refusal
    return [(one["kind"], one["code"], one["field"]) for one in refusal["messages"]]


def count_rows() -> tuple[int, int]:
    with operator():
        return Dataset.objects.count(), DatasetVersion.objects.count()


def test_what_is_personal_is_counted_and_masked_and_near_duplicates_can_be_kept(bob: Person) -> None:
    rows = [{"text": f"Ask grace.hopper@navy.mil about {'the very same matter ' * 9} {end}"} for end in ("now", "then")]
    upload = make_upload(bob, "\n".join(map(json.dumps, rows)).encode())
    made = create(bob, upload, recipe={"nearDedup": None})
    work()
    version = looked_at(bob, made)
    assert (version["rowsKept"], version["recipe"]["nearDedup"]) == (2, None)
    assert version["piiFindings"] == [{"key": "EMAIL", "count": 2}]
    assert all("EMAIL_" in row["text"] and "navy" not in row["text"] for row in version["preview"])
    reduced = create(bob, upload, recipe={"pii": "KEEP", "nearDedup": {"threshold": 0.6}})
    work()
    version = looked_at(bob, reduced)
    assert (version["rowsKept"], version["recipe"]["pii"]) == (1, "KEEP")
    assert "grace.hopper@navy.mil" in version["preview"][0]["text"]


def test_a_zip_of_source_becomes_a_version_of_its_modules(bob: Person) -> None:
    upload = make_upload(bob, zipped({"p/a.py": "x = 1\n", "p/b.py": "y = 2\nz = (\n"}))
    made = create(bob, upload, recipe={"pythonUnits": "MODULES"})
    work()
    version = looked_at(bob, made)
    assert (version["recipe"]["format"], version["recipe"]["pythonUnits"]) == ("PYTHON", "MODULES")
    [row] = version["preview"]
    assert {name: row[name] for name in ("text", "source", "line")} == {
        "text": "x = 1\n",
        "source": "p/a.py",
        "line": 1,
    }
    [edge] = version["rejections"]["edges"]
    assert {name: edge["node"][name] for name in ("source", "line", "reason")} == {
        "source": "p/b.py",
        "line": 2,
        "reason": "SYNTAX_ERROR",
    }


def test_an_upload_becomes_a_version_that_can_be_looked_into(bob: Person) -> None:
    upload = make_upload(bob, CONTENT)
    made = create(bob, upload)
    assert (made["status"], made["number"], made["dataset"]) == ("QUEUED", 1, {"name": "Snippets"})
    assert looked_at(bob, made)["preview"] == []
    work()
    version = looked_at(bob, made)
    assert {name: version[name] for name in ("status", "progress", "errorCode", "rowsIn", "rowsKept")} == {
        "status": "SUCCEEDED",
        "progress": 1.0,
        "errorCode": None,
        "rowsIn": 44,
        "rowsKept": 40,
    }
    assert version["createdBy"] == {"email": "bob@example.com"}
    columns = {"prompt": "prompt", "completion": "completion"}
    assert version["recipe"] == {
        "format": "JSONL",
        "pythonUnits": "FUNCTIONS",
        "columns": version["recipe"]["columns"],
        "minCharacters": 1,
        "maxCharacters": 200_000,
        "exactDedup": True,
        "nearDedup": {"threshold": 0.7, "permutations": 256, "shingleTokens": 5},
        "pii": "MASK",
        "secrets": "MASK",
        "bias": True,
        "split": {"train": 0.8, "validation": 0.1, "test": 0.1, "seed": 17},
    }
    assert {key: value for key, value in version["recipe"]["columns"].items() if value} == columns
    assert version["biasReport"] == version["biasReport"] | {"rows": 40, "rows_with_identity": 0, "look_at": []}
    assert [split["name"] for split in version["splits"]] == ["TRAIN", "VALIDATION", "TEST"]
    assert sum(split["rows"] for split in version["splits"]) == 40
    of_row = [(row["uploadSha256"], row["source"], row["changedBy"]) for row in version["preview"]]
    assert of_row == [(upload.sha256, None, [])] * 2
    assert all(ROWS[row["line"] - 1]["prompt"] == row["prompt"] for row in version["preview"])
    assert sum(split["bytes"] for split in version["splits"]) < version["sizeBytes"]
    assert len(version["preview"]) == 2
    assert all(
        {"prompt": row["prompt"], "completion": row["completion"]} in ROWS and row["text"] is row["messages"] is None
        for row in version["preview"]
    )
    steps = {step["name"]: step for step in version["steps"]}
    assert [step["status"] for step in version["steps"]] == ["DONE"] * 9
    assert all(step["rowsIn"] == step["rowsKept"] + step["rowsDropped"] for step in version["steps"])
    assert steps["dedup_exact"]["reasons"] == [{"key": "DUPLICATE", "count": 1}]
    assert [edge["node"]["line"] for edge in version["rejections"]["edges"]] == [41, 42, 43, 44]
    assert [edge["node"]["step"] for edge in version["rejections"]["edges"]] == [
        "parse",
        "parse",
        "dedup_exact",
        "validate",
    ]
    events = version["events"]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    statuses = [event["status"] for event in events if event["__typename"] == "StatusChanged"]
    assert statuses == ["QUEUED", "RUNNING", "SUCCEEDED"]
    assert {event["name"] for event in events if event["__typename"] == "StepProgressed"} == set(steps)
    assert not (django_settings.ATTEMPTS_ROOT / str(_version().pk)).exists()

    _check_pages_of_rejections(bob, made)
    _check_that_the_same_again_is_the_same_version(bob, upload, made)


def _version() -> DatasetVersion:
    with operator():
        return DatasetVersion.objects.get()


def _check_pages_of_rejections(person: Person, made: dict[str, Any]) -> None:
    first = rejections(person, made, first=3)
    assert [edge["node"]["line"] for edge in first["edges"]] == [41, 42, 43]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"], first["pageInfo"]["hasPreviousPage"]) == (
        4,
        True,
        False,
    )
    rest = rejections(person, made, first=3, after=first["pageInfo"]["endCursor"])
    assert [edge["node"]["line"] for edge in rest["edges"]] == [44]
    assert (rest["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasPreviousPage"]) == (False, True)
    duplicates = rejections(person, made, reason="DUPLICATE")
    assert [edge["node"] for edge in duplicates["edges"]] == [{"line": 43, "reason": "DUPLICATE"}]
    assert duplicates["totalCount"] == 1
    for reason in ("NO_SUCH", "\x00", "\ud800"):
        assert rejections(person, made, reason=reason)["edges"] == []
    for arguments in ({"after": "x"}, {"after": "-1"}, {"after": "9" * 30}, {"first": -1}):
        answer = person.ask(REJECTIONS, id=made["id"], **arguments)
        assert [error["extensions"] for error in answer["errors"]] == [
            {"code": "INVALID", "field": next(iter(arguments))}
        ]


def _check_that_the_same_again_is_the_same_version(person: Person, upload: Upload, made: dict[str, Any]) -> None:
    before = count_rows()
    same = create(person, make_upload(person, CONTENT, "another-name.jsonl"), name="Another")
    assert (same["id"], same["status"], same["dataset"]) == (made["id"], "SUCCEEDED", {"name": "Snippets"})
    with operator():
        dataset = global_id(DatasetVersion.objects.select_related("dataset").get().dataset)
    again = person.data(PROCESS, input={"datasetId": dataset})["processDataset"]
    assert again["id"] == made["id"]
    assert count_rows() == before
    other = person.data(PROCESS, input={"datasetId": dataset, "recipe": {"exactDedup": False}})["processDataset"]
    assert (other["number"], other["status"], other["dataset"]) == (2, "QUEUED", {"name": "Snippets"})
    assert other["fingerprint"] != made["fingerprint"]
    latest = "query ($id: ID!) { dataset(id: $id) { latestVersion { number } versions { totalCount edges { node { number } } } } }"
    assert person.data(latest, id=dataset)["dataset"] == {
        "latestVersion": {"number": 2},
        "versions": {"totalCount": 2, "edges": [{"node": {"number": 2}}, {"node": {"number": 1}}]},
    }


@pytest.mark.parametrize(
    ("content", "file_name", "recipe", "code"),
    [
        (b"", "rows.jsonl", {}, "EMPTY_FILE"),
        (b"PK\x05\x06" + b"\0" * 18, "rows.jsonl", {"format": "JSONL"}, "FORMAT_MISMATCH"),
        (b"<html><body>x</body></html>", "rows.jsonl", {}, "FORMAT_UNKNOWN"),
        (b'{"prompt": "", "completion": ""}\n' * 3, "rows.jsonl", {}, "NO_USABLE_ROWS"),
    ],
)
def test_an_upload_that_makes_no_version_fails_with_a_code_and_what_to_do(
    alice: Person, content: bytes, file_name: str, recipe: dict[str, Any], code: str
) -> None:
    made = create(alice, make_upload(alice, content, file_name), recipe=recipe)
    work()
    version = looked_at(alice, made)
    assert (version["status"], version["rowsKept"], version["splits"], version["preview"]) == ("FAILED", None, [], [])
    assert version["errorCode"] == code
    assert any(word in version["errorMessage"] for word in ("pload", "set format", "field"))
    assert [event["status"] for event in version["events"] if event["__typename"] == "StatusChanged"] == [
        "QUEUED",
        "RUNNING",
        "FAILED",
    ]
    # what has failed is no answer to the same question: it is tried anew
    assert create(alice, make_upload(alice, content, file_name), recipe=recipe)["id"] != made["id"]


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"minCharacters": -1}, "recipe.minCharacters"),
        ({"maxCharacters": 0}, "recipe.maxCharacters"),
        ({"nearDedup": {"threshold": 0.1}}, "recipe.nearDedup.threshold"),
        ({"nearDedup": {"permutations": 2**30}}, "recipe.nearDedup.permutations"),
        ({"minCharacters": 5, "maxCharacters": 4}, "recipe.minCharacters"),
        ({"split": {"train": 0.9}}, "recipe.split"),
        ({"split": {"train": 0, "validation": 0.5, "test": 0.5}}, "recipe.split.train"),
        ({"columns": {"prompt": "a", "text": "b"}}, "recipe.columns"),
        ({"columns": {"prompt": ""}}, "recipe.columns.prompt"),
        ({"columns": {"prompt": "\x00"}}, "recipe.columns.prompt"),
        ({"columns": {"group": "\ud800"}}, "recipe.columns.group"),
        ({"columns": {"prompt": "x" * 1001}}, "recipe.columns.prompt"),
    ],
)
def test_a_recipe_that_cannot_be_followed_is_refused_by_its_field(
    alice: Person, recipe: dict[str, Any], field: str
) -> None:
    upload = make_upload(alice, CONTENT)
    assert codes(create(alice, upload, recipe=recipe)) == [("VALIDATION", "INVALID_RECIPE", field)]
    assert count_rows() == (0, 0)


def test_an_upload_has_to_be_complete(alice: Person) -> None:
    with operator():
        waiting = Upload.objects.create(organization=alice.organization, file_name="f", size_bytes=7)
    assert codes(create(alice, waiting)) == [("VALIDATION", "UPLOAD_INCOMPLETE", "uploadId")]
    assert count_rows() == (0, 0)


@pytest.mark.parametrize("name", ["", "   ", "x" * 151, "a\x00", "a\ud800", "a\nb"])
def test_a_dataset_needs_a_name(alice: Person, name: str) -> None:
    assert codes(create(alice, make_upload(alice, CONTENT), name=name)) == [("VALIDATION", "INVALID", "name")]
    assert count_rows() == (0, 0)


def test_who_belongs_to_several_organizations_says_which(alice: Person, bob: Person, charlie: Person) -> None:
    with operator():
        Membership.objects.create(user=bob.user, organization=charlie.organization, role=Role.MEMBER)
    upload = make_upload(bob, CONTENT)
    assert codes(create(bob, upload)) == [("VALIDATION", "ORGANIZATION_REQUIRED", "organizationId")]
    # the upload is the first one's: it makes no dataset of the second
    assert codes(create(bob, upload, organizationId=global_id(charlie.organization))) == [("ERROR", "NOT_FOUND", None)]
    assert count_rows() == (0, 0)
    assert create(bob, upload, organizationId=global_id(alice.organization))["status"] == "QUEUED"


def test_a_viewer_looks_and_changes_nothing(alice: Person, vera: Person) -> None:
    upload, version = make_upload(alice, CONTENT), make_version(alice, status="QUEUED")
    before = count_rows()
    refused = [("PERMISSION", "NOT_ALLOWED", None)]
    assert codes(create(vera, upload)) == refused
    process = vera.data(PROCESS, input={"datasetId": global_id(version.dataset), "uploadId": global_id(upload)})
    assert codes(process["processDataset"]) == refused
    assert codes(vera.data(CANCEL, id=global_id(version))["cancelDatasetVersion"]) == refused
    assert count_rows() == before
    assert vera.data("query ($id: ID!) { datasetVersion(id: $id) { status } }", id=global_id(version)) == {
        "datasetVersion": {"status": "QUEUED"}
    }


def test_a_queued_version_is_cancelled_at_once_a_running_one_is_asked_and_an_ended_one_stays(alice: Person) -> None:
    dataset = make_dataset(alice)
    for status, then in [("QUEUED", "CANCELLED"), ("RUNNING", "RUNNING"), ("SUCCEEDED", "SUCCEEDED")]:
        version = make_version(alice, dataset, status=status)
        for _ in range(2):
            answer = alice.data(CANCEL, id=global_id(version))["cancelDatasetVersion"]
            assert answer["status"] == then
            assert bool(answer["cancelRequestedAt"]) == (status != "SUCCEEDED")
            assert bool(answer["finishedAt"]) == (status == "QUEUED")


def _at_once(person: Person, document: str, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same person's requests, each in a thread with a connection of its own, all begun together."""
    begin = threading.Barrier(len(inputs))

    def ask(one: dict[str, Any]) -> dict[str, Any]:
        begin.wait()
        try:
            (answer,) = replace(person, client=Client()).data(document, input=one).values()
            return answer
        finally:
            connection.close()

    with ThreadPoolExecutor(len(inputs)) as threads:
        return list(threads.map(ask, inputs))


@pytest.mark.django_db(transaction=True)
def test_equal_requests_at_once_make_one_version_between_them() -> None:
    ada = make_person("Ada")
    made = {"name": "Snippets", "uploadId": global_id(make_upload(ada, CONTENT))}
    answers = _at_once(ada, CREATE, [made] * 8)
    assert len({answer["id"] for answer in answers}) == 1
    assert count_rows() == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_different_requests_at_once_take_a_number_each() -> None:
    ada = make_person("Ada")
    version = make_version(ada)
    dataset, upload = global_id(version.dataset), global_id(make_upload(ada, CONTENT))
    made = [{"datasetId": dataset, "uploadId": upload, "recipe": {"minCharacters": count}} for count in range(8)]
    assert sorted(answer["number"] for answer in _at_once(ada, PROCESS, made)) == list(range(2, 10))
