"""Runs: as many queued and running as are allowed, a month's minutes by the time at work, and what an adapter stores."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from accounts.usage import settle
from accounts.usage_kinds import UsageKind
from common import operations
from common.claims import claim
from common.clock import ServerClock
from common.held import HeldJob
from common.jobs import MAX_UNPRODUCTIVE_ATTEMPTS, JobStatus, request_cancel, requeue
from common.tenancy import operator, tenant
from datasets.models import DatasetVersion
from tests.accounts.ledger import allow, entries, used
from tests.cast import Person, make_person
from tests.rows import global_id, make_version
from training.models import Adapter, TrainingRun, TrainingRunEvent

START = """mutation ($version: ID!) { answer: startTrainingRun(input: {datasetVersionId: $version}) {
  __typename ... on QuotaExceeded { quota code message limit used resetsAt } ... on TrainingRun { id } } }"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def version(ada: Person) -> DatasetVersion:
    return make_version(ada)


def start(person: Person, version: DatasetVersion) -> dict[str, Any]:
    return person.data(START, version=global_id(version))["answer"]


def started(person: Person, version: DatasetVersion) -> TrainingRun:
    answer = start(person, version)
    assert answer["__typename"] == "TrainingRun", answer
    with operator():
        return TrainingRun.objects.first()


def held() -> HeldJob:
    """The next run in a worker's hands."""
    with operator():
        TrainingRun.objects.queued().update(due_at=ServerClock())
    lease = claim(TrainingRun, "worker")
    assert lease
    return HeldJob(lease, lambda: False)


def runs(person: Person) -> int:
    return used(person).running_runs


def count_runs() -> int:
    with operator():
        return TrainingRun.objects.count()


def test_a_run_too_many_is_refused_and_leaves_nothing(ada: Person, version: DatasetVersion) -> None:
    allow(ada, concurrent_runs=2)
    for _ in range(2):
        started(ada, version)
    assert start(ada, version) == {
        "__typename": "QuotaExceeded",
        "quota": "concurrentRuns",
        "code": "QUOTA_EXCEEDED",
        "message": "Your organization may have 2 runs queued or running, and has 2. Wait for one to end, or cancel one.",
        "limit": 2,
        "used": 2,
        "resetsAt": None,
    }
    assert (count_runs(), runs(ada)) == (2, 2)


def test_of_two_at_once_the_last_place_goes_to_one(ada: Person, version: DatasetVersion) -> None:
    allow(ada, concurrent_runs=1)
    begin = threading.Barrier(4)

    def ask() -> str:
        begin.wait()
        try:
            return start(replace(ada, client=Client()), version)["__typename"]
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as clients:
        answers = [asked.result() for asked in [clients.submit(ask) for _ in range(4)]]
    assert sorted(answers) == ["QuotaExceeded"] * 3 + ["TrainingRun"]
    assert (count_runs(), runs(ada)) == (1, 1)


def cancel_queued(person: Person, run: TrainingRun) -> None:
    with tenant(person.principal):
        request_cancel(run)


def cancel_queued_as_operator(person: Person, run: TrainingRun) -> None:
    with operator():
        operations.cancel(run, "command")


def fail(person: Person, run: TrainingRun) -> None:
    held().fail("NUMERICS", "It was not finite.")


def poison(person: Person, run: TrainingRun) -> None:
    """As the keeper ends it."""
    for _ in range(MAX_UNPRODUCTIVE_ATTEMPTS):
        job = held()
        with operator():
            requeue(TrainingRun.objects.held(job.lease), "Its worker was lost.")


def cancel_running(person: Person, run: TrainingRun) -> None:
    job = held()
    cancel_queued(person, run)
    assert runs(person) == 1  # it saves first
    job.cancel()


@pytest.mark.parametrize("end", [cancel_queued, cancel_queued_as_operator, cancel_running, fail, poison])
def test_a_run_that_ends_makes_room_whoever_ends_it(ada: Person, version: DatasetVersion, end: Any) -> None:
    allow(ada, concurrent_runs=1)
    run = started(ada, version)
    end(ada, run)
    with operator():
        assert TrainingRun.objects.get().has_ended
    assert runs(ada) == 0
    started(ada, version)
    assert start(ada, version)["__typename"] == "QuotaExceeded"


def test_a_run_that_is_queued_again_keeps_its_place(ada: Person, version: DatasetVersion) -> None:
    run = started(ada, version)
    for _ in range(2):
        held().give_back("The worker was asked to stop.")
        assert entries(ada) == {("RUNS", f"run:{run.pk}"): 1}


def set_back(run: TrainingRun, sequence: int, seconds: float) -> None:
    with operator():
        TrainingRunEvent.objects.filter(job=run, sequence=sequence).update(
            at=ServerClock() - timedelta(seconds=seconds)
        )


def test_a_run_takes_its_time_at_work_and_not_what_it_waited(ada: Person, version: DatasetVersion) -> None:
    run = started(ada, version)
    held().give_back("The worker was asked to stop.")
    second = held()
    set_back(run, 2, 5000)
    set_back(run, 3, 4900)  # a hundred seconds of work, and an hour in the queue
    set_back(run, 4, 50)
    second.fail("NUMERICS", "It was not finite.")
    with operator():
        log = dict(TrainingRunEvent.objects.filter(job=run).values_list("sequence", "at"))
        seconds = round((log[3] - log[2] + log[5] - log[4]).total_seconds())
        TrainingRun.objects.get().ended()
    assert 149 <= seconds <= 160
    assert entries(ada) == {("TRAINING_SECONDS", f"run:{run.pk}"): seconds}
    assert used(ada).training_minutes_this_month == 2


def test_a_run_that_never_began_takes_no_time(ada: Person, version: DatasetVersion) -> None:
    cancel_queued(ada, started(ada, version))
    assert entries(ada) == {}


def test_an_adapter_takes_what_it_stores(ada: Person, version: DatasetVersion) -> None:
    run = started(ada, version)
    job = held()

    def succeeded(run: TrainingRun, result: dict[str, Any]) -> None:
        Adapter.objects.create(organization_id=run.organization_id, training_run=run, version=1, size_bytes=12_345)

    job.succeed(succeeded, {})
    with operator():
        adapter = Adapter.objects.get()
        run.refresh_from_db()
    assert run.status == JobStatus.SUCCEEDED
    stored = {key: amount for (kind, key), amount in entries(ada).items() if kind == "STORAGE_BYTES"}
    assert stored == {f"adapter:{adapter.pk}": 12_345}
    assert (used(ada).storage_bytes, runs(ada)) == (12_345, 0)


def use(person: Person, kind: UsageKind, amount: int) -> None:
    with tenant(person.principal):
        settle(person.organization.pk, kind, amount, key="before")


def test_when_the_months_minutes_are_used_up_none_is_started_until_the_next(
    ada: Person, version: DatasetVersion
) -> None:
    allow(ada, training_minutes_per_month=5)
    use(ada, UsageKind.TRAINING_SECONDS, 299)
    started(ada, version)
    use(ada, UsageKind.TRAINING_SECONDS, 300)
    refusal = start(ada, version)
    assert (refusal["quota"], refusal["limit"], refusal["used"]) == ("trainingMinutesPerMonth", 5, 5)
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 month', 'YYYY-MM-01')")
        assert refusal["resetsAt"] == f"{cursor.fetchone()[0]}T00:00:00+00:00"
    assert (count_runs(), runs(ada)) == (1, 1)
    allow(ada, training_minutes_per_month=6)
    started(ada, version)


def test_without_room_for_an_adapter_none_is_started(ada: Person, version: DatasetVersion) -> None:
    allow(ada, storage_bytes=100)
    use(ada, UsageKind.STORAGE_BYTES, 100)
    refusal = start(ada, version)
    assert (refusal["quota"], refusal["limit"], refusal["used"]) == ("storageBytes", 100, 100)
    assert (count_runs(), runs(ada)) == (0, 0)


def test_runs_of_others_take_no_place(ada: Person, version: DatasetVersion) -> None:
    charlie = make_person("Charlie")
    allow(ada, concurrent_runs=1)
    allow(charlie, concurrent_runs=1)
    started(ada, version)
    started(charlie, make_version(charlie))
    assert (runs(ada), runs(charlie)) == (1, 1)
