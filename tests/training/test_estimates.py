"""What a run will take is told before it starts, and one that cannot fit is refused with what would."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Role
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import Person, make_person
from tests.rows import global_id, make_run, stored_version
from tests.training.estimates import COSTS, FIELDS, START, ask, code, counted, device, some_lengths
from training.models import Device, TokenCount, TrainingRun
from training.trainer.config import TrainingConfig
from training.trainer.costs import Measurement
from training.trainer.sampler import Sampler

ROWS = some_lengths(900)
MS = 50

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("with_estimates")]


def sampler(lengths: Any, max_tokens: int = 1024, **config: Any) -> Sampler:
    return Sampler(np.minimum(lengths, max_tokens), TrainingConfig(**config), max_tokens)


def count_jobs() -> int:
    with operator():
        return TokenCount.objects.count()


def test_it_says_what_a_run_takes_from_what_was_measured(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS, some_lengths(50, seed=2))
    device()
    answer = ask(bob, version)
    tokens = int(np.minimum(ROWS, 1024).sum()) * 3
    assert (answer["steps"], answer["tokens"]) == (sampler(ROWS).total_steps, tokens)
    assert (answer["basis"], answer["fits"]) == ("MODELLED", True)
    stepping = 0.0004 * tokens + 0.03 * answer["steps"]
    assert 1.02 * stepping + 8 < answer["seconds"] < 1.5 * stepping + 8, "attention, validations, the test split"
    assert answer["low"] == pytest.approx(0.7 * answer["seconds"])
    assert answer["high"] == pytest.approx(1.5 * answer["seconds"])
    in_batch = 160_000 * 4 * 1024
    assert 500_000_000 + 0.97 * in_batch < answer["peakMemoryBytes"] < 500_000_000 + 1.1 * in_batch


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"epochs": 2.5},
        {"epochs": 0.3},
        {"max_steps": 7},
        {"packing": False},
        {"packing": False, "batch_size": 3, "gradient_accumulation": 5, "epochs": 1.7},
        {"gradient_accumulation": 3, "seed": 5},
        {"max_sequence_tokens": 64, "batch_size": 1},
        {"batch_size": 200},
    ],
    ids=str,
)
def test_its_steps_are_those_that_the_trainer_makes(
    bob: Person, version: DatasetVersion, config: dict[str, Any]
) -> None:
    counted(version, ROWS)
    device()
    asked = {name.replace("_t", "T").replace("_s", "S").replace("_a", "A"): value for name, value in config.items()}
    answer = ask(bob, version, **asked)
    max_tokens = config.get("max_sequence_tokens", 1024)
    made = sampler(ROWS, max_tokens, **config)
    assert answer["steps"] == made.total_steps
    trained = sum(
        np.minimum(ROWS, max_tokens)[rows].sum() for step in range(made.total_steps) for rows in made.rows(step)
    )
    assert answer["tokens"] == pytest.approx(trained, rel=0.1 if "max_steps" in config else 0.02)


def test_until_a_worker_has_counted_it_is_pending_and_asked_for_once(bob: Person, version: DatasetVersion) -> None:
    device()
    assert [code(ask(bob, version)) for _ in range(3)] == ["ESTIMATE_PENDING"] * 3
    with operator():
        (count,) = TokenCount.objects.all()
        assert (count.status, count.version_id, count.last_sequence) == ("QUEUED", version.pk, 1)


def test_a_count_that_failed_says_why_and_is_tried_again_after_an_hour(bob: Person, version: DatasetVersion) -> None:
    device()
    failed = counted(
        version,
        ROWS,
        status="FAILED",
        splits=None,
        error_code="CHAT_TEMPLATE",
        error_message="No role may follow another.",
        finished_at=timezone.now() - timedelta(minutes=59),
    )
    for _ in range(2):
        (message,) = ask(bob, version)["messages"]
        assert (message["code"], message["message"]) == ("CHAT_TEMPLATE", "No role may follow another.")
    assert bob.data(START, version=global_id(version))["answer"]["estimate"] is None
    assert count_jobs() == 1
    with operator():
        TokenCount.objects.filter(pk=failed.pk).update(finished_at=timezone.now() - timedelta(minutes=61))
    assert [code(ask(bob, version)) for _ in range(2)] == ["ESTIMATE_PENDING"] * 2
    assert count_jobs() == 2


def test_of_several_who_ask_at_once_one_has_it_counted(bob: Person, version: DatasetVersion) -> None:
    begin = threading.Barrier(4)

    def ask_too() -> str:
        begin.wait()
        try:
            return code(ask(replace(bob, client=Client()), version))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as clients:
        answers = [asked.result() for asked in [clients.submit(ask_too) for _ in range(4)]]
    assert (answers, count_jobs()) == (["ESTIMATE_PENDING"] * 4, 1)


def test_until_a_host_has_measured_it_is_pending(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS)
    assert code(ask(bob, version)) == "ESTIMATE_PENDING"
    device()
    assert ask(bob, version)["__typename"] == "Estimate"


@pytest.mark.parametrize(
    ("fields", "config", "expected"),
    [
        ({"status": "FAILED"}, {}, "DATASET_NOT_READY"),
        ({"storage_prefix": ""}, {}, "DATASET_DELETED"),
        ({}, {"loraRank": 0}, "INVALID_CONFIG"),
    ],
)
def test_what_could_not_be_started_is_not_estimated(
    bob: Person, version: DatasetVersion, fields: dict[str, Any], config: dict[str, Any], expected: str
) -> None:
    device()
    with operator():
        DatasetVersion.objects.update(**fields)
    assert code(ask(bob, version, **config)) == expected
    assert code(ask(bob, version, base="no/such")) in ("UNKNOWN_BASE_MODEL", "DATASET_NOT_READY")
    assert count_jobs() == 0


def test_a_viewer_estimates_nothing_and_leaves_nothing(bob: Person, version: DatasetVersion) -> None:
    device()
    viewer = make_person("Vera", bob.organization, Role.VIEWER)
    assert code(ask(viewer, version)) == "NOT_ALLOWED"
    assert count_jobs() == 0


def test_where_the_platform_makes_none_that_is_said(bob: Person, version: DatasetVersion, settings: Any) -> None:
    settings.ESTIMATES = False
    assert code(ask(bob, version)) == "ESTIMATES_OFF"
    assert bob.data(START, version=global_id(version))["answer"]["estimate"] is None
    assert count_jobs() == 0


def finished(person: Person, version: DatasetVersion, tokens_per_second: float, **fields: Any) -> TrainingRun:
    result = {
        "steps": 100,
        "tokens": 400_000,
        "tokens_per_second": tokens_per_second,
        "environment": {"device": "the CPU (2 threads)"},
    }
    return make_run(person, version, status="SUCCEEDED", **{"result": result, **fields})


def test_earlier_runs_of_the_organization_say_how_fast_it_goes(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS)
    device()
    modelled = ask(bob, version)
    charlie = make_person("Charlie")
    finished(charlie, stored_version(charlie), 1_000)
    finished(bob, version, 1_000, config=TrainingConfig(max_sequence_tokens=64).to_json())
    finished(bob, version, 1_000, config=TrainingConfig(lora_dropout=0).to_json())
    finished(
        bob,
        version,
        1_000,
        result={"tokens_per_second": 9, "tokens": 9, "steps": 9, "environment": {"device": "a GPU"}},
    )
    assert ask(bob, version) == modelled, "neither another's, nor of another kind, nor on another device"
    for rate in (1_000, 1_100, 900):
        finished(bob, version, rate)
    measured = ask(bob, version)
    assert measured["basis"] == "MEASURED"
    assert measured["seconds"] - 8 == pytest.approx(measured["tokens"] / 1_000, rel=0.02)
    assert measured["low"] < 0.9 * measured["seconds"] and 1.1 * measured["seconds"] < measured["high"]
    assert {name: measured[name] for name in ("steps", "tokens", "peakMemoryBytes")} == {
        name: modelled[name] for name in ("steps", "tokens", "peakMemoryBytes")
    }


def test_earlier_runs_count_that_were_in_as_many_processes(bob: Person, version: DatasetVersion, settings: Any) -> None:
    counted(version, ROWS)
    device(replace(COSTS, measurement=replace(COSTS.measurement, cores=3)))
    finished(bob, version, 1_000)
    of_two = finished(bob, version, 4_000)
    with operator():
        TrainingRun.objects.filter(pk=of_two.pk).update(result={**(of_two.result or {}), "processes": 2})
    for processes, rate in ((1, 1_000), (2, 4_000)):
        settings.TRAINER_PROCESSES = processes
        answer = ask(bob, version)
        assert (answer["basis"], answer["seconds"] - 8) == (
            "MEASURED",
            pytest.approx(answer["tokens"] / rate, rel=0.02),
        )
    settings.TRAINER_PROCESSES = 3
    assert ask(bob, version)["basis"] == "MODELLED"


def test_one_that_may_stop_early_may_take_as_little_as_until_then(bob: Person, version: DatasetVersion) -> None:
    """The first validation is the best, and those that patience allows are not better."""
    counted(version, ROWS, some_lengths(50, seed=2))
    device()
    whole = ask(bob, version, evalEverySteps=20)
    until_then = ask(bob, version, evalEverySteps=20, maxSteps=60)
    early = ask(bob, version, evalEverySteps=20, earlyStoppingPatience=2)
    assert whole["steps"] > 60 and until_then["low"] < 0.5 * whole["low"]
    assert early["low"] == pytest.approx(until_then["low"], rel=0.02)
    assert {**early, "low": whole["low"]} == whole
    assert ask(bob, version, evalEverySteps=20, earlyStoppingPatience=100) == whole


def test_without_validation_rows_nothing_stops_early(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS)
    device()
    assert ask(bob, version, earlyStoppingPatience=1) == ask(bob, version)


def test_of_several_devices_the_fastest_that_suffices_counts(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS)
    small = replace(COSTS, measurement=Measurement(5, 1.0, 600_000_000, 0))
    device(small, host="small")
    assert ask(bob, version)["fits"] is False
    slow = device(host="slow", name="the CPU (1 threads)")
    fitting = ask(bob, version)
    assert fitting["fits"] is True
    with operator():
        Device.objects.filter(pk=slow.pk).update(seen_at=slow.seen_at - timedelta(minutes=11))
    assert ask(bob, version)["fits"] is False, "it has not been there for a while"


def test_a_run_keeps_the_estimate_that_it_was_started_with(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS)
    measured = device()
    told = ask(bob, version)
    run = bob.data(START, version=global_id(version))["answer"]
    with operator():
        Device.objects.filter(pk=measured.pk).delete()
    kept = bob.data(f"query ($id: ID!) {{ trainingRun(id: $id) {{ estimate {{ {FIELDS} }} }} }}", id=run["id"])
    assert kept["trainingRun"]["estimate"] == run["estimate"] == {name: told[name] for name in FIELDS.split()}


@pytest.mark.parametrize(
    ("status", "expected"), [("RUNNING", 12.5), ("QUEUED", None), ("SUCCEEDED", None), ("FAILED", None)]
)
def test_how_long_it_still_takes_is_told_while_it_is_at_work(
    bob: Person, version: DatasetVersion, status: str, expected: float | None
) -> None:
    run = make_run(bob, version, status=status, eta_seconds=12.5)
    found = bob.data("query ($id: ID!) { trainingRun(id: $id) { etaSeconds } }", id=global_id(run))
    assert found["trainingRun"]["etaSeconds"] == expected


LIST = "{ trainingRuns(first: 100) { edges { node { etaSeconds estimate { seconds steps basis } } } } }"


def test_a_list_with_estimates_costs_as_many_queries_however_long(bob: Person, version: DatasetVersion) -> None:
    counts = []
    for more in (10, 90):
        for _ in range(more):
            make_run(bob, version, estimate={**ESTIMATED, "basis": "MODELLED"})
        with CaptureQueriesContext(connection) as queries:
            edges = bob.data(LIST)["trainingRuns"]["edges"]
        counts.append(len(queries))
    assert len(edges) == 100 and edges[0]["node"]["estimate"] == {"seconds": 2.0, "steps": 5, "basis": "MODELLED"}
    assert counts[0] == counts[1]


ESTIMATED = {"peak_memory_bytes": 1, "seconds": 2.0, "low": 1.0, "high": 3.0, "tokens": 4, "steps": 5, "fits": True}


@pytest.mark.parametrize(("rows", "epochs"), [(1_000, 200), (60_000, 3), (60_000, 50)])
def test_it_is_answered_at_once(bob: Person, version: DatasetVersion, rows: int, epochs: int) -> None:
    """In this process's own time: what the machine does meanwhile is no matter of ours."""
    counted(version, some_lengths(rows))
    device()
    ask(bob, version)  # numpy is imported
    took = []
    for _ in range(5):
        began = time.process_time()
        assert ask(bob, version, epochs=epochs)["__typename"] == "Estimate"
        took.append(1000 * (time.process_time() - began))
    assert min(took) <= MS, took


def test_an_estimate_takes_few_statements(bob: Person, version: DatasetVersion) -> None:
    counted(version, ROWS)
    device()
    with CaptureQueriesContext(connection) as queries:
        ask(bob, version)
    assert len(queries) <= 12, [query["sql"][:90] for query in queries]
