"""A run's curves: all that was logged, or of many points those that are seen."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.timezone import now

from common.tenancy import operator
from tests.cast import Person
from tests.rows import global_id, make_run
from training.curves import CURVES
from training.models import TrainingRun, TrainingRunEvent

pytestmark = pytest.mark.django_db(transaction=True)

METRICS = """query ($id: ID!, $names: [String!], $most: Int! = 1000) { trainingRun(id: $id) {
  metrics(names: $names, maxPoints: $most) { name steps values } } }"""


def log(run: TrainingRun, *events: tuple[str, dict[str, Any]]) -> None:
    with operator():
        TrainingRunEvent.objects.bulk_create(
            TrainingRunEvent(
                organization_id=run.organization_id, job=run, sequence=number, at=now(), kind=kind, data=data
            )
            for number, (kind, data) in enumerate(events, 1)
        )


def step(number: int, loss: float | None, **more: Any) -> tuple[str, dict[str, Any]]:
    return "StepLogged", {"step": number, "total_steps": 9, "loss": loss, "learning_rate": 0.5, **more}


def metrics(person: Person, run: TrainingRun, *names: str, most: int = 1000) -> list[dict[str, Any]]:
    return ask(person, run, list(names) or None, most)


def ask(person: Person, run: TrainingRun, names: list[str] | None, most: int = 1000) -> list[dict[str, Any]]:
    found = person.data(METRICS, id=global_id(run), names=names, most=most)
    return found["trainingRun"]["metrics"]


def test_all_that_was_logged_is_shown_and_what_was_taken_twice_once(bob: Person) -> None:
    run = make_run(bob)
    log(
        run,
        step(1, 3.0, grad_norm=1.5, tokens_per_second=80.0, memory_bytes=2**33),
        step(2, 2.5),
        ("Evaluated", {"step": 2, "eval_loss": 2.75}),
        step(3, 9.0),
        ("StatusChanged", {"status": "RUNNING"}),
        step(3, None),  # resumed from its second step
        step(4, 1.0),
    )
    log(make_run(bob, run.dataset_version), step(1, 77.0))
    assert metrics(bob, run) == [
        {"name": "loss", "steps": [1, 2, 3, 4], "values": [3.0, 2.5, None, 1.0]},
        {"name": "learningRate", "steps": [1, 2, 3, 4], "values": [0.5] * 4},
        {"name": "gradNorm", "steps": [1, 2, 3, 4], "values": [1.5, None, None, None]},
        {"name": "tokensPerSecond", "steps": [1, 2, 3, 4], "values": [80.0, None, None, None]},
        {"name": "memoryBytes", "steps": [1, 2, 3, 4], "values": [2.0**33, None, None, None]},
        {"name": "evalLoss", "steps": [2], "values": [2.75]},
    ]
    assert metrics(bob, run, "evalLoss", "loss", "loss") == [metrics(bob, run)[5], metrics(bob, run)[0]]
    assert metrics(bob, make_run(bob, run.dataset_version), "loss") == [{"name": "loss", "steps": [], "values": []}]
    assert ask(bob, run, []) == []


def test_of_many_points_the_ends_and_each_spike_stay(bob: Person) -> None:
    run, draw = make_run(bob), random.Random(5)
    losses = [2 + math.exp(-number / 3000) + draw.random() / 10 for number in range(10_000)]
    losses[6_789], losses[4_321], losses[17] = 40.0, -7.0, None  # type: ignore[call-overload]
    log(run, *(step(number, loss) for number, loss in enumerate(losses, 1)))
    (shown,) = metrics(bob, run, "loss", most=100)
    assert 90 <= len(shown["steps"]) == len(shown["values"]) <= 100
    assert shown["steps"] == sorted(set(shown["steps"]))
    assert (shown["steps"][0], shown["steps"][-1]) == (1, 10_000)
    drawn = dict(zip(shown["steps"], shown["values"], strict=True))
    assert (drawn[6_790], drawn[4_322]) == (40.0, -7.0)
    assert all(value == losses[number - 1] for number, value in drawn.items())
    widest = max(after - before for before, after in zip(shown["steps"], shown["steps"][1:], strict=False))
    assert widest < 3 * 10_000 / 49
    (whole,) = metrics(bob, run, "loss", most=10_000)
    assert whole["values"] == losses


def test_all_curves_take_one_statement(bob: Person) -> None:
    run = make_run(bob)
    log(run, *(step(number, 1.0) for number in range(1, 50)))
    with CaptureQueriesContext(
        connection,
    ) as asked:
        metrics(bob, run)
    assert sum("training_trainingrunevent" in query["sql"] for query in asked) == 1


@pytest.mark.parametrize(
    ("names", "most", "message"),
    [
        (["loss", "los"], 10, f"There is no metric 'los'; there are {', '.join(CURVES)}."),
        (None, 3, "maxPoints has to be from 4 to 10,000."),
        (None, 10_001, "maxPoints has to be from 4 to 10,000."),
    ],
)
def test_what_there_is_not_is_said(bob: Person, names: list[str] | None, most: int, message: str) -> None:
    answer = bob.ask(METRICS, id=global_id(make_run(bob)), names=names, most=most)
    assert [error["message"] for error in answer["errors"]] == [message]
