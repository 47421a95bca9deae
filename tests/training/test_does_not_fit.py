"""A run that no device has the memory for is refused at once, with what would fit; nothing else is."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import Person
from tests.rows import global_id
from tests.training.estimates import COSTS, START, ask, code, counted, device, some_lengths
from training.models import TrainingRun
from training.trainer.costs import Measurement

ROWS = some_lengths(900)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("with_estimates")]


def test_of_a_run_in_several_processes_nothing_is_refused(bob: Person, version: DatasetVersion, settings: Any) -> None:
    counted(version, ROWS)
    device(replace(COSTS, measurement=Measurement(5, 8.0, 900_000_000, 0)))
    assert code(bob.data(START, version=global_id(version))["answer"]) == "DOES_NOT_FIT"
    settings.TRAINER_PROCESSES = 2
    run = bob.data(START, version=global_id(version))["answer"]
    assert (run["__typename"], run["estimate"]["fits"]) == ("TrainingRun", False)


def test_a_run_that_cannot_fit_is_refused_with_what_would(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS)
    device(replace(COSTS, measurement=Measurement(5, 8.0, 900_000_000, 0)))
    (message,) = bob.data(START, version=global_id(version), config={"quantization": "NONE"})["answer"]["messages"]
    assert (message["kind"], message["code"], message["field"]) == ("VALIDATION", "DOES_NOT_FIT", "config")
    assert message["message"].endswith(
        "MB of memory, and 900 MB are there. It would fit with batchSize 2 or maxSequenceTokens 512."
    )
    with operator():
        assert TrainingRun.objects.count() == 0
    run = bob.data(START, version=global_id(version), config={"batchSize": 2})["answer"]
    assert run["__typename"] == "TrainingRun" and run["estimate"]["fits"] is True
    assert ask(bob, version)["fits"] is False, "an estimate is no refusal"


@pytest.mark.parametrize(
    ("kind", "free_mb", "is_refused"), [("cuda", 700, False), ("cuda", 650, True), ("cpu", 700, True)]
)
def test_a_run_that_halving_its_micro_batches_would_save_is_not_refused(
    bob: Person, version: DatasetVersion, kind: str, free_mb: int, is_refused: bool
) -> None:
    """Its longest row has 1,024 tokens, which take 175 MB of their own; a micro-batch has four times as many."""
    counted(version, ROWS)
    device(replace(COSTS, measurement=Measurement(5, 8.0, free_mb * 1_000_000, 0)), kind=kind)
    run = bob.data(START, version=global_id(version))["answer"]
    assert run["__typename"] == ("OperationInfo" if is_refused else "TrainingRun")
    assert is_refused or run["estimate"]["fits"] is False
    assert ask(bob, version)["fits"] is False


def test_a_refusal_speaks_of_one_device(bob: Person, version: DatasetVersion) -> None:
    """The other one is faster, and would have needed less than this one has."""
    counted(version, ROWS)
    device(
        replace(
            COSTS,
            measurement=Measurement(5, 8.0, 2_000_000_000, 0),
            peak_bytes=replace(COSTS.peak_bytes, fixed=5_000_000_000),
        )
    )
    faster = replace(COSTS.seconds, token=0.0001)
    device(replace(COSTS, measurement=Measurement(5, 8.0, 900_000_000, 0), seconds=faster), host="trainer-2")
    (message,) = bob.data(START, version=global_id(version))["answer"]["messages"]
    assert re.match(r"The run would take about 5,\d\d\d MB of memory, and 2,000 MB are there\.", message["message"])


def test_where_no_single_change_helps_that_is_said(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS)
    device(replace(COSTS, measurement=Measurement(5, 8.0, 400_000_000, 0)))
    (message,) = bob.data(START, version=global_id(version))["answer"]["messages"]
    assert message["message"].endswith("No single change of its config would make it fit.")


def test_where_nothing_is_known_a_run_starts_and_says_nothing(bob: Person, version: DatasetVersion) -> None:
    run = bob.data(START, version=global_id(version))["answer"]
    assert (run["__typename"], run["estimate"], run["etaSeconds"]) == ("TrainingRun", None, None)
    counted_later = bob.data("query ($id: ID!) { trainingRun(id: $id) { estimate { steps } } }", id=run["id"])
    assert counted_later["trainingRun"]["estimate"] is None
