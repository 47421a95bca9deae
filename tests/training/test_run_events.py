"""What a run's events say on the wire."""

from __future__ import annotations

import pytest

from tests.cast import Person
from tests.rows import global_id, make_run
from tests.training.test_curves import log

pytestmark = pytest.mark.django_db(transaction=True)


def test_samples_are_events_of_the_run(bob: Person) -> None:
    run = make_run(bob)
    log(run, ("SampleGenerated", {"step": 3, "prompt": "def add(", "continuation": "a, b):"}))
    asked = """query ($id: ID!) { trainingRun(id: $id) { events {
      __typename sequence ... on SampleGenerated { step prompt continuation } } } }"""
    assert bob.data(asked, id=global_id(run))["trainingRun"]["events"] == [
        {"__typename": "SampleGenerated", "sequence": 1, "step": 3, "prompt": "def add(", "continuation": "a, b):"}
    ]


def test_a_checkpoint_has_the_validation_loss_of_its_step_where_there_is_one(bob: Person) -> None:
    run = make_run(bob)

    def saved(step: int) -> tuple[str, dict[str, object]]:
        return "CheckpointSaved", {"step": step, "size_bytes": 9, "sha256": f"{step}"}

    log(
        run,
        saved(2),
        ("Evaluated", {"step": 3, "eval_loss": 1.5}),
        ("Evaluated", {"step": 4, "eval_loss": 1.25}),
        saved(4),
        ("Evaluated", {"step": 6, "eval_loss": None}),
        saved(6),
    )
    asked = "query ($id: ID!) { trainingRun(id: $id) { checkpoints { step evalLoss sha256 } } }"
    assert bob.data(asked, id=global_id(run))["trainingRun"]["checkpoints"] == [
        {"step": 2, "evalLoss": None, "sha256": "2"},
        {"step": 4, "evalLoss": 1.25, "sha256": "4"},
        {"step": 6, "evalLoss": None, "sha256": "6"},
    ]
