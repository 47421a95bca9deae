"""Expectations through the API: in the recipe, in what is left out, in a failure, and where they are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from datasets.tasks import work
from tests.cast import Person
from tests.rows import global_id, make_upload

pytestmark = pytest.mark.django_db(transaction=True)

CREATE = """
mutation ($input: CreateDatasetInput!) { createDataset(input: $input) {
  ... on DatasetVersion { id } ... on OperationInfo { messages { kind code field message } }
} }
"""
LOOK = """
query ($id: ID!) { datasetVersion(id: $id) {
  status errorCode errorMessage recipe { expectations }
  rejections { edges { node { line field step reason } } }
} }
"""
ROWS = [{"text": f"row {number}", "n": number} for number in range(4)]


def create(person: Person, expectation: dict[str, Any]) -> dict[str, Any]:
    upload = make_upload(person, "\n".join(map(json.dumps, ROWS)).encode())
    chosen = {"name": "Rows", "uploadId": global_id(upload), "recipe": {"expectations": [expectation]}}
    return person.data(CREATE, input=chosen)["createDataset"]


def test_rows_that_are_otherwise_are_left_out_or_make_no_version(bob: Person) -> None:
    made = create(bob, {"column": "n", "check": "RANGE", "max": 2})
    work()
    version = bob.data(LOOK, id=made["id"])["datasetVersion"]
    assert version["status"] == "SUCCEEDED"
    assert version["recipe"]["expectations"] == [
        {
            "column": "n",
            "check": "RANGE",
            "pattern": None,
            "min": None,
            "max": 2.0,
            "values": None,
            "on_failure": "DROP",
        }
    ]
    assert [edge["node"] for edge in version["rejections"]["edges"]] == [
        {"line": 4, "field": "n", "step": "validate", "reason": "EXPECTATION_FAILED"}
    ]
    made = create(bob, {"column": "n", "check": "SET", "values": ["0", "1"], "onFailure": "FAIL"})
    before = files()
    work()
    version = bob.data(LOOK, id=made["id"])["datasetVersion"]
    assert (version["status"], version["errorCode"], version["rejections"]["edges"]) == (
        "FAILED",
        "EXPECTATION_FAILED",
        [],
    )
    assert version["errorMessage"].startswith(
        "The upload is not as expected: 2 rows do not meet SET of 'n' (first in line 3)."
    )
    assert files() == before


def files() -> list[str]:
    return sorted(str(path) for path in Path(settings.STORAGE_ROOT).rglob("versions/**/*"))


@pytest.mark.parametrize(
    ("expectation", "field"),
    [
        ({"column": "n", "check": "REGEX"}, "recipe.expectations.0.pattern"),
        ({"column": "n", "check": "REGEX", "pattern": "\0"}, "recipe.expectations.0.pattern"),
        ({"column": "n\0", "check": "UNIQUE"}, "recipe.expectations.0.column"),
        ({"column": "n", "check": "SET", "values": ["\0"]}, "recipe.expectations.0.values"),
        ({"column": "n", "check": "RANGE", "min": 3, "max": 2}, "recipe.expectations.0.min"),
    ],
)
def test_what_cannot_be_checked_is_told_at_its_place(bob: Person, expectation: dict[str, Any], field: str) -> None:
    (message,) = create(bob, expectation)["messages"]
    assert (message["code"], message["field"]) == ("INVALID_RECIPE", field)
    assert message["message"].startswith(f"{field} ")
