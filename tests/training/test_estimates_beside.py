"""What an estimate tells where the run is not alone: several processes, and an adapter in production to be measured beside."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import Person, make_person
from tests.rows import global_id, make_adapter, make_run
from tests.training.estimates import COSTS, counted, device, some_lengths
from training.catalogue import SMALL
from training.models import Adapter, TrainingRun
from training.trainer.costs import Costs

ESTIMATE = """
mutation ($version: ID!, $name: String, $config: TrainingConfigInput) {
  answer: estimateTrainingRun(input: {datasetVersionId: $version, name: $name, config: $config}) {
    __typename ... on Estimate { peakMemoryBytes seconds low high tokens steps basis fits }
    ... on OperationInfo { messages { code field } } } }"""
START = """
mutation ($version: ID!, $name: String) { answer: startTrainingRun(input: {datasetVersionId: $version, name: $name}) {
  ... on TrainingRun { name estimate { seconds } } } }"""
HELD_OUT = some_lengths(50, seed=2)
A_PASS_S = 0.25 * (
    0.0004 * (tokens := int(np.minimum(HELD_OUT, 1024).sum()))
    + 1e-7 * int((np.minimum(HELD_OUT, 1024) ** 2).sum())
    + 0.03 * tokens / 4_096
)
"""Of the test rows through a model: the share of a step's time that its way forward has."""

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("with_estimates")]


def ask(person: Person, version: DatasetVersion, name: str | None = None, **config: Any) -> dict[str, Any]:
    return person.data(ESTIMATE, version=global_id(version), name=name, config=config)["answer"]


def in_production(person: Person, name: str, **fields: Any) -> Adapter:
    run = make_run(person, name=name, status="SUCCEEDED", base_model_name=SMALL.name)
    return make_adapter(person, run, stage="PRODUCTION", **fields)


def test_the_adapter_in_production_is_measured_too_where_the_run_has_its_name(
    bob: Person, version: DatasetVersion
) -> None:
    counted(version, some_lengths(900), HELD_OUT)
    device()
    alone = ask(bob, version)
    in_production(bob, f"{version.dataset.name} v{version.number}")
    in_production(bob, "Mine")
    for name in (None, "Mine"):
        beside = ask(bob, version, name)
        assert beside["seconds"] - alone["seconds"] == pytest.approx(A_PASS_S)
        assert beside["low"] - alone["low"] == pytest.approx(0.7 * A_PASS_S)
        assert {**beside, **{each: alone[each] for each in ("seconds", "low", "high")}} == alone
    assert ask(bob, version, "Another") == alone
    started = bob.data(START, version=global_id(version), name="Mine")["answer"]
    assert started == {"name": "Mine", "estimate": {"seconds": beside["seconds"]}}


@pytest.mark.parametrize(
    "fields",
    [{"stage": "CANDIDATE"}, {"stage": "ARCHIVED"}, {"base_model_name": "other"}, {"base_model_revision": "0"}],
    ids=str,
)
def test_one_that_no_run_measures_takes_no_time(bob: Person, version: DatasetVersion, fields: dict[str, Any]) -> None:
    counted(version, some_lengths(900), HELD_OUT)
    device()
    alone = ask(bob, version, "Mine")
    in_production(bob, "Mine")
    with operator():
        Adapter.objects.update(**fields)
    in_production(make_person("Dora"), "Mine")  # nor does another organization's
    assert ask(bob, version, "Mine") == alone


def test_what_may_stop_early_measures_all_of_them_then(bob: Person, version: DatasetVersion) -> None:
    counted(version, some_lengths(900), HELD_OUT)
    device()
    config = {"evalEverySteps": 20, "earlyStoppingPatience": 2}
    alone = ask(bob, version, "Mine", **config)
    in_production(bob, "Mine")
    assert ask(bob, version, "Mine", **config)["low"] - alone["low"] == pytest.approx(0.7 * A_PASS_S)


def test_a_name_that_cannot_be_is_not_estimated(bob: Person, version: DatasetVersion) -> None:
    counted(version, some_lengths(900))
    device()
    (message,) = ask(bob, version, "a\x00b")["messages"]
    assert message["field"] == "name"


def on_cores(cores: int) -> Costs:
    return replace(COSTS, measurement=replace(COSTS.measurement, cores=cores, threads=1))


@pytest.mark.parametrize(("cores", "crowded"), [(1, 2), (2, 1), (16, 1)])
def test_of_two_processes_on_a_cpu_each_has_half_where_there_are_cores_for_both(
    bob: Person, version: DatasetVersion, settings: Any, cores: int, crowded: int
) -> None:
    """Rows of equal lengths, of which each process gets two of the four in a step."""
    counted(version, [1024] * 400)
    device(on_cores(cores))
    one = ask(bob, version)
    settings.TRAINER_PROCESSES = 2
    two = ask(bob, version)
    steps, tokens = 300, 300 * 4 * 1024
    assert (two["steps"], two["tokens"]) == (one["steps"], one["tokens"]) == (steps, tokens)
    of_tokens = one["seconds"] - 8 - 0.5 - 0.03 * steps - 400 * 1024 / 500_000
    exchanging = steps * 4 * 256_000 / 500_000_000
    starting = (8 + 400 * 1024 / 500_000) * crowded + 10 * 0.05
    assert two["seconds"] == pytest.approx(starting + crowded * (0.03 * steps + of_tokens / 2) + exchanging)
    in_batch = one["peakMemoryBytes"] - 500_000_000
    assert two["peakMemoryBytes"] == pytest.approx(2 * (500_000_000 + in_batch / 2), rel=1e-6)


def test_two_accelerators_share_a_run_and_each_has_its_own_memory(
    bob: Person, version: DatasetVersion, settings: Any
) -> None:
    counted(version, [1024] * 400)
    device(on_cores(1), kind="cuda")
    one = ask(bob, version)
    settings.TRAINER_PROCESSES = 2
    two = ask(bob, version)
    token = one["seconds"] - 8 - 0.5 - 0.03 * 300 - 400 * 1024 / 500_000
    assert two["seconds"] == pytest.approx(one["seconds"] - token / 2)
    assert two["peakMemoryBytes"] < one["peakMemoryBytes"]


def test_earlier_runs_in_as_many_processes_are_judged_by_what_as_many_take(
    bob: Person, version: DatasetVersion, settings: Any
) -> None:
    """They were as fast as the model of two says: nothing is corrected."""
    counted(version, [1024] * 400)
    device(on_cores(2))
    settings.TRAINER_PROCESSES = 2
    modelled = ask(bob, version)
    stepping = modelled["seconds"] - 8 - 0.5 - 400 * 1024 / 500_000
    result = {
        "steps": modelled["steps"],
        "tokens": modelled["tokens"],
        "tokens_per_second": modelled["tokens"] / stepping,
        "processes": 2,
        "environment": {"device": "the CPU (2 threads)"},
    }
    before = make_run(bob, version, status="SUCCEEDED", result=result)
    with operator():
        TrainingRun.objects.filter(pk=before.pk).update(base_model_name=SMALL.name)
    measured = ask(bob, version)
    assert (measured["basis"], measured["seconds"]) == ("MEASURED", pytest.approx(modelled["seconds"], rel=0.001))


@pytest.mark.parametrize(("rows", "processes", "accumulation"), [(60_000, 4, 1), (60_000, 64, 1024), (1_000, 2, 8)])
def test_it_is_answered_at_once(
    bob: Person, version: DatasetVersion, settings: Any, rows: int, processes: int, accumulation: int
) -> None:
    counted(version, some_lengths(rows))
    device()
    settings.TRAINER_PROCESSES = processes
    ask(bob, version)  # numpy is imported
    took = []
    for _ in range(5):
        began = time.process_time()
        assert ask(bob, version, gradientAccumulation=accumulation)["__typename"] == "Estimate"
        took.append(1000 * (time.process_time() - began))
    assert min(took) <= 50, took
