"""Runs and adapters through the API: started or refused, listed page by page at a constant number of queries."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common import graphql
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion
from tests.cast import Person
from tests.rows import BASE, global_id, make_adapter, make_dataset, make_run, make_upload, make_version
from training.models import Adapter, TrainingRun, TrainingRunEvent

START = """
mutation ($input: StartTrainingRunInput!) { startTrainingRun(input: $input) {
  __typename
  ... on TrainingRun {
    id name status executor attempt step baseModel { name } datasetVersion { number dataset { name latestVersion { number } } }
    config {
      epochs maxSteps learningRate scheduler warmupRatio weightDecay maxGradNorm batchSize gradientAccumulation
      maxSequenceTokens packing fimRate quantization loraRank loraAlpha loraDropout targetModules evalEverySteps
      checkpointEverySteps keepCheckpoints earlyStoppingPatience seed
    }
    checkpoints { step } adapter { name }
    events { __typename sequence ... on StatusChanged { status reason } }
  }
  ... on OperationInfo { messages { kind code field message } }
} }
"""
CANCEL = """
mutation ($id: ID!) { cancelTrainingRun(id: $id) {
  __typename
  ... on TrainingRun { status cancelRequestedAt finishedAt }
  ... on OperationInfo { messages { kind code field } }
} }
"""
RUNS = """
query ($first: Int, $after: String, $last: Int, $before: String, $status: [JobStatus!]) {
  trainingRuns(first: $first, after: $after, last: $last, before: $before, status: $status) {
    totalCount
    edges { cursor node { name } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}
"""


def start(person: Person, version: DatasetVersion, **fields: Any) -> dict[str, Any]:
    return person.data(START, input={"datasetVersionId": global_id(version), **fields})["startTrainingRun"]


def codes(refusal: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    assert refusal["__typename"] == "OperationInfo", refusal
    return [(one["kind"], one["code"], one["field"]) for one in refusal["messages"]]


def count_runs() -> tuple[int, int]:
    with operator():
        return TrainingRun.objects.count(), TrainingRunEvent.objects.count()


def test_a_run_is_queued_with_every_default_filled_in(bob: Person) -> None:
    run = start(bob, make_version(bob), config={"maxSteps": 6, "targetModules": ["v_proj", "q_proj"]})
    assert {**run, "id": None} == {
        "__typename": "TrainingRun",
        "id": None,
        "name": "Snippets v1",
        "status": "QUEUED",
        "executor": "LOCAL",
        "attempt": 0,
        "step": 0,
        "baseModel": {"name": BASE},
        "datasetVersion": {"number": 1, "dataset": {"name": "Snippets", "latestVersion": {"number": 1}}},
        "config": {
            "epochs": 3.0,
            "maxSteps": 6,
            "learningRate": 0.0002,
            "scheduler": "COSINE",
            "warmupRatio": 0.03,
            "weightDecay": 0.0,
            "maxGradNorm": 1.0,
            "batchSize": 4,
            "gradientAccumulation": 1,
            "maxSequenceTokens": 1024,
            "packing": True,
            "fimRate": 0.0,
            "quantization": "NF4",
            "loraRank": 16,
            "loraAlpha": 32,
            "loraDropout": 0.05,
            "targetModules": ["q_proj", "v_proj"],
            "evalEverySteps": None,
            "checkpointEverySteps": None,
            "keepCheckpoints": 2,
            "earlyStoppingPatience": None,
            "seed": 17,
        },
        "checkpoints": [],
        "adapter": None,
        "events": [{"__typename": "StatusChanged", "sequence": 1, "status": "QUEUED", "reason": None}],
    }
    with operator():
        row = TrainingRun.objects.get()
    assert (row.organization_id, row.created_by_id, row.base_model_revision) == (
        bob.organization.pk,
        bob.user.pk,
        "1",
    )


@pytest.mark.parametrize("status", ["QUEUED", "RUNNING", "FAILED", "CANCELLED"])
def test_a_version_has_to_be_made(alice: Person, status: str) -> None:
    version = make_version(alice, status=status)
    assert codes(start(alice, version)) == [("VALIDATION", "DATASET_NOT_READY", "datasetVersionId")]
    assert count_runs() == (0, 0)


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"baseModel": "gpt-5"}, "UNKNOWN_BASE_MODEL", "baseModel"),
        ({"baseModel": "../../etc"}, "UNKNOWN_BASE_MODEL", "baseModel"),
        ({"baseModel": "\x00"}, "UNKNOWN_BASE_MODEL", "baseModel"),
        ({"baseModel": "\ud800"}, "UNKNOWN_BASE_MODEL", "baseModel"),
        ({"baseModel": "bigcode/starcoder2-3b"}, "BASE_MODEL_UNAVAILABLE", "baseModel"),
        ({"name": " "}, "INVALID", "name"),
        ({"name": "n" * 151}, "INVALID", "name"),
        ({"name": "a\x00"}, "INVALID", "name"),
        ({"config": {"epochs": 0}}, "INVALID_CONFIG", "config.epochs"),
        ({"config": {"maxSteps": 0}}, "INVALID_CONFIG", "config.maxSteps"),
        ({"config": {"learningRate": -1}}, "INVALID_CONFIG", "config.learningRate"),
        ({"config": {"warmupRatio": 1.5}}, "INVALID_CONFIG", "config.warmupRatio"),
        ({"config": {"batchSize": 0}}, "INVALID_CONFIG", "config.batchSize"),
        ({"config": {"maxSequenceTokens": 1}}, "INVALID_CONFIG", "config.maxSequenceTokens"),
        ({"config": {"loraRank": 1000}}, "INVALID_CONFIG", "config.loraRank"),
        ({"config": {"targetModules": []}}, "INVALID_CONFIG", "config.targetModules"),
        ({"config": {"targetModules": ["lm_head\x00"]}}, "INVALID_CONFIG", "config.targetModules"),
        ({"config": {"seed": -1}}, "INVALID_CONFIG", "config.seed"),
    ],
)
def test_what_cannot_be_trained_is_refused_by_its_field(
    alice: Person, fields: dict[str, Any], code: str, field: str
) -> None:
    assert codes(start(alice, make_version(alice), **fields)) == [("VALIDATION", code, field)]
    assert count_runs() == (0, 0)


def test_a_viewer_starts_and_cancels_nothing(alice: Person, vera: Person) -> None:
    run = make_run(alice, status="QUEUED")
    before = count_runs()
    assert codes(start(vera, run.dataset_version)) == [("PERMISSION", "NOT_ALLOWED", None)]
    assert codes(vera.data(CANCEL, id=global_id(run))["cancelTrainingRun"]) == [("PERMISSION", "NOT_ALLOWED", None)]
    assert count_runs() == before
    assert alice.data("{ trainingRuns { edges { node { status } } } }") == {
        "trainingRuns": {"edges": [{"node": {"status": "QUEUED"}}]}
    }


def test_for_an_outsider_there_is_no_such_version_and_no_such_run(alice: Person, charlie: Person) -> None:
    run = make_run(alice, status="QUEUED")
    before = count_runs()
    assert codes(start(charlie, run.dataset_version)) == [("ERROR", "NOT_FOUND", None)]
    assert codes(charlie.data(CANCEL, id=global_id(run))["cancelTrainingRun"]) == [("ERROR", "NOT_FOUND", None)]
    assert count_runs() == before


def test_a_queued_run_is_cancelled_at_once_a_running_one_is_asked_and_an_ended_one_stays(alice: Person) -> None:
    version = make_version(alice)
    for status, then in [("QUEUED", "CANCELLED"), ("RUNNING", "RUNNING"), ("FAILED", "FAILED")]:
        run = make_run(alice, version, status=status)
        for _ in range(2):
            answer = alice.data(CANCEL, id=global_id(run))["cancelTrainingRun"]
            assert answer["status"] == then
            assert bool(answer["cancelRequestedAt"]) == (status != "FAILED")
            assert bool(answer["finishedAt"]) == (status == "QUEUED")


def test_base_models_are_the_allow_list(alice: Person) -> None:
    answer = alice.data("{ baseModels { name revision contextTokens license available } }")["baseModels"]
    assert [(model["name"], model["available"]) for model in answer] == [("bigcode/starcoder2-3b", False), (BASE, True)]
    assert {model["license"] for model in answer} == {"bigcode-openrail-m", "PSF-2.0"}


def test_an_object_comes_in_one_query_with_what_is_asked_of_it(alice: Person) -> None:
    run = make_run(alice, status="SUCCEEDED")
    adapter = make_adapter(alice, run)
    document = """query ($id: ID!) { trainingRun(id: $id) {
        name createdBy { email } datasetVersion { number dataset { name } } adapter { id name }
    } }"""
    with CaptureQueriesContext(connection) as queries:
        answer = alice.data(document, id=global_id(run))["trainingRun"]
    assert answer == {
        "name": "First",
        "createdBy": {"email": alice.user.email},
        "datasetVersion": {"number": 1, "dataset": {"name": "Snippets"}},
        "adapter": {"id": global_id(adapter), "name": adapter.name},
    }
    reading = [query["sql"] for query in queries if "FROM" in query["sql"]]
    assert ["training_trainingrun" in sql for sql in reading] == [False, True], "who asks, and what"


# ------------------------------------------------------------------------------------------------ lists


@pytest.fixture
def seven(alice: Person, charlie: Person) -> None:
    """Runs 0 to 6 of Alice's, the last one newest, two of them made in the same instant; and one of Charlie's."""
    version, now = make_version(alice), datetime(2030, 1, 1, tzinfo=UTC)
    for number, minute in enumerate([0, 1, 2, 2, 3, 4, 5]):
        run = make_run(alice, version, name=f"{number}", status="FAILED" if number == 1 else "QUEUED")
        with operator():
            TrainingRun.objects.filter(pk=run.pk).update(created_at=now + timedelta(minutes=minute))
    make_run(charlie, name="not hers")


def page(person: Person, **arguments: Any) -> dict[str, Any]:
    return person.data(RUNS, **arguments)["trainingRuns"]


def names(listed: dict[str, Any]) -> list[str]:
    return [edge["node"]["name"] for edge in listed["edges"]]


def test_runs_come_newest_first_and_page_by_page_without_a_gap(alice: Person, seven: None) -> None:
    everything = names(page(alice))
    assert [everything[0], everything[1], everything[2], everything[-2:]] == ["6", "5", "4", ["1", "0"]]
    assert set(everything[3:5]) == {"2", "3"}
    seen: list[str] = []
    after = None
    while True:
        listed = page(alice, first=2, after=after)
        assert listed["totalCount"] == 7
        seen += names(listed)
        after = listed["pageInfo"]["endCursor"]
        if not listed["pageInfo"]["hasNextPage"]:
            break
    assert seen == everything
    back = page(alice, last=2, before=after)
    assert names(back) == everything[-3:-1]
    assert back["pageInfo"]["hasPreviousPage"] is True
    assert names(page(alice, last=3)) == everything[-3:]
    assert names(page(alice, first=0)) == []


@pytest.mark.parametrize(("arguments", "bound"), [("after", "<="), ("before", ">=")])
def test_a_page_begins_in_the_index_where_its_cursor_says(
    alice: Person, seven: None, arguments: str, bound: str
) -> None:
    cursor = page(alice)["edges"][3]["cursor"]
    with CaptureQueriesContext(connection) as queries:
        assert len(page(alice, **{arguments: cursor})["edges"]) == 3
    listed = next(query["sql"] for query in queries if 'ORDER BY "training_trainingrun"' in query["sql"])
    with operator(), connection.cursor() as database:
        database.execute(
            "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"
        )
        database.execute("EXPLAIN " + listed.partition(";")[2])  # without its scope
        plan = [line for (line,) in database.fetchall()]
    (condition,) = [line for line in plan if "Index Cond" in line and "created_at" in line]
    assert f"(created_at {bound} " in condition


def test_runs_are_filtered_by_state(alice: Person, seven: None) -> None:
    failed = page(alice, status=["FAILED"])
    assert (names(failed), failed["totalCount"]) == (["1"], 1)
    assert page(alice, status=["RUNNING", "SUCCEEDED"])["totalCount"] == 0


def test_a_page_has_at_most_100_also_where_nobody_says_how_many(alice: Person) -> None:
    _make_many(alice, 101)
    for field in ("trainingRuns", "adapters", "datasets"):
        listed = alice.data(f"{{ {field} {{ totalCount edges {{ cursor }} pageInfo {{ hasNextPage }} }} }}")[field]
        assert (len(listed["edges"]), listed["totalCount"], listed["pageInfo"]) == (100, 101, {"hasNextPage": True})


def test_a_list_counts_up_to_a_limit_and_not_beyond(
    alice: Person, seven: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert graphql.COUNTED_UP_TO == 10_000
    for limit, counted in [(7, 7), (6, None)]:
        monkeypatch.setattr(graphql, "COUNTED_UP_TO", limit)
        assert page(alice, first=1)["totalCount"] == counted


def _cursor(*values: Any) -> str:
    return base64.b64encode(f"orderedcursor:{json.dumps(values)}".encode()).decode()


@pytest.mark.parametrize(
    "arguments",
    [
        {"first": 101},
        {"first": -1},
        {"last": 101},
        {"last": -1},
        {"first": 1, "last": -1},
        {"first": 2**31 - 1},
        {"after": "x"},
        {"after": "\x00"},
        {"after": "\ud800"},
        {"before": "MTI="},
        {"after": _cursor()},
        {"after": _cursor("2030-01-01T00:00:00Z")},
        {"after": _cursor("2030-01-01T00:00:00Z", "x")},
        {"after": _cursor("yesterday", str(uuid4()))},
        {"after": _cursor("2030-13-01T00:00:00Z", str(uuid4()))},
        {"after": _cursor("2030-01-01T00:00:00+23:59", str(uuid4()))},
        {"after": _cursor("2030-01-01T00:00:00", str(uuid4()))},
        {"after": _cursor(None, str(uuid4()))},
        {"before": _cursor(7, 7)},
        {"before": _cursor("\x00", "\x00")},
    ],
)
def test_a_page_that_cannot_be_is_refused_as_such(alice: Person, seven: None, arguments: dict[str, Any]) -> None:
    (error,) = alice.ask(RUNS, **arguments)["errors"]
    assert error["extensions"]["code"] == "INVALID"
    assert error["path"] == ["trainingRuns"]


LISTS = {
    "datasets": "{ datasets(first: 100) { totalCount edges { node { name organization { name } latestVersion { number createdBy { email } } } } } }",
    "trainingRuns": """{ trainingRuns(first: 100) { totalCount edges { node {
        name status baseModel { name } createdBy { email } datasetVersion { number dataset { name } } adapter { name digest }
    } } } }""",
    "adapters": "{ adapters(first: 100) { totalCount edges { node { name organization { name } trainingRun { name status } } } } }",
}


@pytest.mark.parametrize("field", LISTS)
def test_a_list_costs_as_many_queries_at_1000_rows_as_at_10(alice: Person, field: str) -> None:
    counts = []
    for made, there in [(10, 10), (990, 1000)]:
        _make_many(alice, made)
        with CaptureQueriesContext(connection) as queries:
            listed = alice.data(LISTS[field])[field]
        assert (listed["totalCount"], len(listed["edges"])) == (there, min(there, 100))
        assert all(value for edge in listed["edges"] for value in edge["node"].values())
        counts.append(len([query for query in queries if "SELECT" in query["sql"]]))
    assert counts[0] == counts[1]
    assert counts[0] <= 12


def _make_many(person: Person, count: int) -> None:
    """So many datasets, each with a version, a run, and an adapter."""
    upload, organization = make_upload(person), {"organization": person.organization}
    by = {**organization, "created_by": person.user}
    template = {"recipe": {}, "fingerprint": "", "upload": upload, "number": 1, "status": "SUCCEEDED"}
    base = {"base_model_name": BASE, "base_model_revision": "1"}
    with operator():
        datasets = Dataset.objects.bulk_create(Dataset(**by, name=f"d{number}") for number in range(count))
        versions = DatasetVersion.objects.bulk_create(DatasetVersion(**by, **template, dataset=one) for one in datasets)
        runs = TrainingRun.objects.bulk_create(
            TrainingRun(**by, **base, name=str(uuid4()), dataset_version=one, config={}) for one in versions
        )
        Adapter.objects.bulk_create(
            Adapter(**organization, **base, training_run=run, name=run.name, version=1, digest="d", size_bytes=1)
            for run in runs
        )


@pytest.mark.parametrize("text", ["\x00", "\ud800", "%", "_", "'", "\\"])
def test_any_text_may_be_looked_for(alice: Person, text: str) -> None:
    make_adapter(alice)
    make_dataset(alice, "plain")
    for document in (
        "query ($text: String) { adapters(name: $text) { totalCount } }",
        "query ($text: String) { adapters(baseModel: $text) { totalCount } }",
        "query ($text: String) { datasets(search: $text) { totalCount } }",
    ):
        assert [*alice.data(document, text=text).values()] == [{"totalCount": 0}]


def test_lists_are_filtered_by_organization_version_name_and_base_model(
    alice: Person, charlie: Person, seven: None
) -> None:
    adapter = make_adapter(alice)
    runs = "query ($o: ID, $v: ID) { trainingRuns(organizationId: $o, datasetVersionId: $v) { totalCount } }"
    assert alice.data(runs, o=global_id(alice.organization)) == {"trainingRuns": {"totalCount": 8}}
    with operator():
        version = TrainingRun.objects.get(pk=adapter.training_run_id).dataset_version_id
        version = DatasetVersion.objects.get(pk=version)
    assert alice.data(runs, v=global_id(version)) == {"trainingRuns": {"totalCount": 1}}
    for foreign in ({"o": global_id(charlie.organization)}, {"v": "x"}, {"o": global_id(version)}):
        assert alice.data(runs, **foreign) == {"trainingRuns": {"totalCount": 0}}
    adapters = "query ($n: String, $b: String) { adapters(name: $n, baseModel: $b) { totalCount } }"
    assert alice.data(adapters, n="First", b=BASE) == {"adapters": {"totalCount": 1}}
    assert alice.data(adapters, n="Second") == alice.data(adapters, b="x") == {"adapters": {"totalCount": 0}}
