"""A run that uses up its organization's minutes is stopped with its checkpoint, and goes on when there are more.

The trainer is the stand-in of the fault tests, in processes of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import default_storage

from accounts.usage import settle
from accounts.usage_kinds import UsageKind
from common import blobs
from common.claims import claim
from common.clock import ServerClock
from common.held import HeldJob
from common.leftovers import attempt_folder
from common.tenancy import operator, tenant
from datasets.models import DatasetVersion
from tests.accounts.ledger import allow, entries
from tests.cast import Person, make_person
from tests.faults.scripts import final_state, state_in
from tests.faults.witness import WITNESS
from tests.processes import start_python
from tests.rows import global_id, make_run, stored_version
from training import tasks
from training.budget import MinutesLeft
from training.executors import local
from training.models import Adapter, TrainingRun
from training.trainer import checkpoint
from training.trainer.config import TrainingConfig

LEFT_S = 5
LATE_S = 2  # a look, SIGTERM, and a save
RESUME = """mutation ($id: ID!) { answer: resumeTrainingRun(id: $id) {
  __typename ... on TrainingRun { id } ... on QuotaExceeded { quota limit used } } }"""
WORKER = """
from training.executors import local
from training.tasks import work
local.TRAINER = "tests.faults.trainer"
work()
"""

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet_queues")]


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "TRAINER", "tests.faults.trainer")
    monkeypatch.setenv(WITNESS, str(tmp_path))


@pytest.fixture
def version(bob: Person) -> DatasetVersion:
    """Of an organization that has five seconds left of its minute."""
    allow(bob, training_minutes_per_month=1)
    use(bob, 60 - LEFT_S)
    return stored_version(bob)


def use(person: Person, seconds: int) -> None:
    with tenant(person.principal):
        settle(person.organization.pk, UsageKind.TRAINING_SECONDS, seconds, key="before")


def queued(person: Person, version: DatasetVersion, name: str = "plain 20 ms", max_steps: int = 2000) -> TrainingRun:
    config = TrainingConfig(max_steps=max_steps, checkpoint_every_steps=10_000, seed=3)
    return make_run(person, version, name=name, config=config.to_json())


def seen(run: TrainingRun) -> TrainingRun:
    with operator():
        return TrainingRun.objects.get(pk=run.pk)


def spent(person: Person) -> dict[str, int]:
    return {key: amount for (kind, key), amount in entries(person).items() if kind == "TRAINING_SECONDS"}


def adapter_state(run: TrainingRun) -> bytes:
    with operator():
        prefix = Adapter.objects.get(training_run=run).storage_prefix
    with default_storage.open(f"{prefix}/adapter_model.safetensors") as file:
        return state_in(file.read())


def test_it_saves_says_what_to_do_and_goes_on_once_there_is_more(bob: Person, version: DatasetVersion) -> None:
    run = queued(bob, version, max_steps=400)
    tasks.work()
    stopped = seen(run)
    assert (stopped.status, stopped.error_code, stopped.attempt) == ("FAILED", "BUDGET_SPENT", 1)
    assert stopped.error_message == (
        "Your organization's 1 training minutes of this month are used up, and the run was stopped. Where it has saved a "
        "checkpoint, resumeTrainingRun goes on from there, for 30 days: next month, or once the operators of the platform "
        "have allowed more."
    )
    assert 0 < (stopped.checkpoint_step or 0) < 400, "it saved because it was told to stop: it saves every 10,000 steps"
    assert LEFT_S <= spent(bob)[f"run:{run.pk}"] <= LEFT_S + LATE_S
    answer = bob.data(RESUME, id=global_id(run))["answer"]
    assert answer == {"__typename": "QuotaExceeded", "quota": "trainingMinutesPerMonth", "limit": 1, "used": 1}
    allow(bob, training_minutes_per_month=10)
    assert bob.data(RESUME, id=global_id(run))["answer"]["__typename"] == "TrainingRun"
    tasks.work()
    with operator():
        resumed = TrainingRun.objects.get(resumed_from=run)
    assert resumed.status == "SUCCEEDED"
    assert adapter_state(resumed) == final_state(3, 400), "as if it had never stopped"


@pytest.mark.slow
def test_runs_at_the_same_time_share_what_is_left(bob: Person, version: DatasetVersion) -> None:
    runs = [queued(bob, version) for _ in range(2)]
    workers = [start_python(WORKER) for _ in runs]
    try:
        assert [worker.wait(60) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    assert [(each.status, each.error_code) for each in map(seen, runs)] == [("FAILED", "BUDGET_SPENT")] * 2
    both = [spent(bob)[f"run:{run.pk}"] for run in runs]
    assert LEFT_S <= sum(both) <= LEFT_S + 2 * LATE_S + 1, "together, not each"


def test_runs_of_others_use_up_nothing_of_it(bob: Person, version: DatasetVersion) -> None:
    charlie = make_person("Charlie")
    allow(charlie, training_minutes_per_month=1)
    theirs, ours = queued(charlie, stored_version(charlie), max_steps=10), queued(bob, version)
    tasks.work()
    assert (seen(theirs).status, seen(ours).error_code) == ("SUCCEEDED", "BUDGET_SPENT")


def test_one_whose_turn_comes_too_late_is_not_begun_and_keeps_what_it_had(
    bob: Person, version: DatasetVersion, tmp_path: Path
) -> None:
    run = queued(bob, version)
    lease = claim(TrainingRun, "worker")
    assert lease
    checkpoint.save(attempt_folder(run.pk, lease.fence) / "checkpoints", 7, lambda folder: (folder / "state").touch())
    HeldJob(lease, lambda: False).give_back("The worker was asked to stop.")
    use(bob, 60)
    tasks.work()
    stopped = seen(run)
    assert (stopped.status, stopped.error_code, stopped.checkpoint_step) == ("FAILED", "BUDGET_SPENT", 7)
    assert blobs.folders(stopped.artefacts) == ["0002-checkpoint"]
    assert not list(tmp_path.glob(f"*{run.pk}*")), "no trainer has begun"


def test_one_that_was_cancelled_is_cancelled_though_nothing_is_left(bob: Person, version: DatasetVersion) -> None:
    use(bob, 60)
    run = queued(bob, version)
    lease = claim(TrainingRun, "worker")
    assert lease
    with operator():
        TrainingRun.objects.filter(pk=run.pk).update(cancel_requested_at=ServerClock())
    HeldJob(lease, lambda: False).fail("BUDGET_SPENT", "Nothing is left.")
    assert seen(run).status == "CANCELLED"


def test_nothing_is_looked_up_before_it_could_be_used_up(
    bob: Person, version: DatasetVersion, django_assert_num_queries: Any
) -> None:
    asked = MinutesLeft(bob.organization.pk)
    assert asked() is None
    with django_assert_num_queries(0):
        assert asked() is None
    use(bob, 60)
    refusal = MinutesLeft(bob.organization.pk)()
    assert refusal is not None and refusal.code == "BUDGET_SPENT"
