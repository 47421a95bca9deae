"""Runs side by side: only what differs, whoever may see all of them."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.cast import Person
from tests.rows import BASE, global_id, make_adapter, make_dataset, make_run, make_version
from training.models import TrainingRun
from training.trainer.config import TrainingConfig

COMPARE = """query ($ids: [ID!]!) { compareRuns(ids: $ids) {
  runs { id name datasetVersion { number dataset { name } } adapter { name } organization { id } }
  differences { area name values } } }"""

pytestmark = pytest.mark.django_db


def compare(person: Person, *runs: TrainingRun) -> dict[str, Any] | None:
    return person.data(COMPARE, ids=[global_id(run) for run in runs])["compareRuns"]


def differing(person: Person, *runs: TrainingRun) -> list[tuple[str, str, list[str | None]]]:
    found = compare(person, *runs)
    assert found is not None
    return [(each["area"], each["name"], each["values"]) for each in found["differences"]]


def test_what_two_runs_have_alike_is_not_told_and_the_rest_is_in_order(bob: Person) -> None:
    dataset = make_dataset(bob)
    splits = [{"name": "TRAIN", "rows": 90, "bytes": 9}, {"name": "TEST", "rows": 10, "bytes": 1}]
    one, two = (
        make_version(bob, dataset, splits=splits),
        make_version(bob, dataset, splits=splits[:1], fingerprint="e" * 64),
    )
    first = make_run(
        bob, one, status="SUCCEEDED", step=40, total_steps=40, loss=1.5, result={"test_loss": 1.25, "tokens": 7}
    )
    second = make_run(
        bob,
        two,
        status="FAILED",
        step=20,
        total_steps=40,
        config=TrainingConfig(learning_rate=1e-3, target_modules=("q_proj", "v_proj"), packing=False).to_json(),
    )
    assert differing(bob, first, second) == [
        ("CONFIG", "learningRate", ["0.0002", "0.001"]),
        ("CONFIG", "packing", ["true", "false"]),
        ("CONFIG", "targetModules", ["q_proj, k_proj, v_proj, o_proj, c_fc, c_proj", "q_proj, v_proj"]),
        ("DATA", "version", ["1", "2"]),
        ("DATA", "fingerprint", ["f" * 64, "e" * 64]),
        ("DATA", "testRows", ["10", None]),
        ("RESULT", "status", ["SUCCEEDED", "FAILED"]),
        ("RESULT", "step", ["40", "20"]),
        ("RESULT", "loss", ["1.5", None]),
        ("RESULT", "tokens", ["7", None]),
        ("RESULT", "testLoss", ["1.25", None]),
    ]
    assert differing(bob, first) == differing(bob, first, first) == []


def test_runs_come_in_the_order_of_their_ids_with_what_belongs_to_them(bob: Person) -> None:
    runs = [make_run(bob, name=f"Run {number}") for number in range(3)]
    adapter = make_adapter(bob, runs[2])
    found = compare(bob, *reversed(runs))
    assert found is not None
    assert [run["name"] for run in found["runs"]] == ["Run 2", "Run 1", "Run 0"]
    assert [run["adapter"] for run in found["runs"]] == [{"name": adapter.name}, None, None]


def test_more_runs_are_no_more_statements(bob: Person) -> None:
    runs = [make_run(bob, name=f"Run {number}") for number in range(10)]
    counts = []
    for some in (runs[:2], runs):
        with CaptureQueriesContext(connection) as asked:
            assert compare(bob, *some)
        counts.append(len(asked))
    assert counts[0] == counts[1]


def test_a_run_of_an_earlier_release_may_lack_a_choice(bob: Person) -> None:
    config = TrainingConfig().to_json()
    del config["packing"]
    assert ("CONFIG", "packing", ["true", None]) in differing(bob, make_run(bob), make_run(bob, config=config))


def test_none_is_told_where_one_is_not_there_or_anothers(bob: Person, charlie: Person) -> None:
    mine, other = make_run(bob, base_model_name=BASE), make_run(charlie)
    assert compare(bob, mine, other) is None
    assert compare(charlie, mine) is None
    assert bob.data(COMPARE, ids=[global_id(mine), "nonsense"])["compareRuns"] is None


@pytest.mark.parametrize("count", [0, 11])
def test_from_one_to_ten_are_compared(bob: Person, count: int) -> None:
    answer = bob.ask(COMPARE, ids=["x"] * count)
    assert [error["message"] for error in answer["errors"]] == ["From 1 to 10 runs are compared."]
