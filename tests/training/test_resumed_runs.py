"""A run that has ended leaves its newest checkpoint, and another run goes on from it. The trainer is the stand-in of the fault tests."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from accounts.models import Role, UsageEntry
from common import blobs
from common.jobs import request_cancel
from common.leftovers import remove_what_it_left
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import Person, make_person
from tests.faults.scripts import final_state, state_in
from tests.faults.witness import WITNESS
from tests.rows import global_id, make_run, stored_version
from training import checkpoints, tasks
from training.executors import local
from training.models import Adapter, TrainingRun

START = """
mutation ($version: ID!, $name: String!, $config: TrainingConfigInput!) {
  startTrainingRun(input: {datasetVersionId: $version, name: $name, config: $config}) { ... on TrainingRun { id } } }"""
RESUME = """
mutation ($id: ID!, $epochs: Float, $maxSteps: Int) { resumeTrainingRun(id: $id, epochs: $epochs, maxSteps: $maxSteps) {
  __typename
  ... on TrainingRun { id name status resumedFrom { id } config { epochs maxSteps seed } }
  ... on OperationInfo { messages { code field message } }
} }"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch: pytest.MonkeyPatch, settings: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "TRAINER", "tests.faults.trainer")
    monkeypatch.setenv(WITNESS, str(tmp_path))


@pytest.fixture
def version(bob: Person) -> DatasetVersion:
    return stored_version(bob)


def started(person: Person, version: DatasetVersion, name: str = "plain 1 ms", **config: Any) -> TrainingRun:
    config = {"maxSteps": 20, "checkpointEverySteps": 4, "seed": 3} | config
    person.data(START, version=global_id(version), name=name, config=config)
    return newest()


def newest() -> TrainingRun:
    with operator():
        return TrainingRun.objects.latest("created_at")


def ended(run: TrainingRun) -> TrainingRun:
    tasks.work()
    with operator():
        return TrainingRun.objects.get(pk=run.pk)


def resume(person: Person, run: TrainingRun, **longer: Any) -> dict[str, Any]:
    return person.data(RESUME, id=global_id(run), **longer)["resumeTrainingRun"]


def resumed(person: Person, run: TrainingRun, **longer: Any) -> TrainingRun:
    assert resume(person, run, **longer)["__typename"] == "TrainingRun"
    return ended(newest())


def cancelled_after(run: TrainingRun, step: int) -> TrainingRun:
    def cancel() -> None:
        try:
            while True:
                with operator():
                    seen = TrainingRun.objects.get(pk=run.pk)
                    if seen.step >= step:
                        request_cancel(seen)
                        return
                time.sleep(0.05)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        cancelling = other.submit(cancel)
        after = ended(run)
        cancelling.result(timeout=1)
    return after


def refusal(answer: dict[str, Any]) -> tuple[str, str | None]:
    assert answer["__typename"] == "OperationInfo", answer
    return answer["messages"][0]["code"], answer["messages"][0]["field"]


def state_of_adapter(run: TrainingRun) -> bytes:
    with operator():
        prefix = Adapter.objects.get(training_run=run).storage_prefix
    with default_storage.open(f"{prefix}/adapter_model.safetensors") as file:
        return state_in(file.read())


def stored_bytes() -> dict[str, int]:
    with operator():
        kept = UsageEntry.objects.filter(kind="STORAGE_BYTES", key__startswith="checkpoint:")
        return dict(kept.values_list("key", "amount"))


def said(run: TrainingRun) -> list[str]:
    with operator():
        return list(run.event_log.filter(kind="LogLine").order_by("sequence").values_list("data__text", flat=True))


def test_a_run_that_succeeded_goes_on_for_longer_as_if_it_had_never_stopped(
    bob: Person, version: DatasetVersion
) -> None:
    first = ended(started(bob, version))
    assert (first.status, first.checkpoint, first.checkpoint_step) == ("SUCCEEDED", "0001-checkpoint", 20)
    assert stored_bytes() == {f"checkpoint:{first.pk}": first.checkpoint_bytes}

    answer = resume(bob, first, maxSteps=30)
    assert answer == {
        "__typename": "TrainingRun",
        "id": answer["id"],
        "name": "plain 1 ms",
        "status": "QUEUED",
        "resumedFrom": {"id": global_id(first)},
        "config": {"epochs": 3.0, "maxSteps": 30, "seed": 3},
    }
    second = ended(newest())
    assert (second.status, second.step, second.checkpoint_step) == ("SUCCEEDED", 30, 30)
    assert said(second) == ["Going on from step 20"]
    assert state_of_adapter(second) == final_state(3, 30)
    assert state_of_adapter(first) == final_state(3, 20)
    with operator():
        versions = Adapter.objects.order_by("version").values_list("name", "version", "training_run")
        assert list(versions) == [("plain 1 ms", 1, first.pk), ("plain 1 ms", 2, second.pk)]


def test_a_run_that_was_cancelled_or_failed_goes_on_from_where_it_was(bob: Person, version: DatasetVersion) -> None:
    failed = ended(started(bob, version, name="user-error 1 ms"))
    assert (failed.status, failed.checkpoint_step) == ("FAILED", 8)
    again = resumed(bob, failed)
    assert (again.status, said(again)) == ("FAILED", ["Going on from step 8"])

    run = started(bob, version, name="plain 50 ms", maxSteps=40)
    cancelled = cancelled_after(run, step=6)
    assert cancelled.status == "CANCELLED"
    assert cancelled.checkpoint_step is not None and 6 <= cancelled.checkpoint_step < 40
    last = resumed(bob, cancelled)
    assert (last.status, said(last)) == ("SUCCEEDED", [f"Going on from step {cancelled.checkpoint_step}"])
    assert state_of_adapter(last) == final_state(3, 40)


def test_a_run_of_which_nothing_is_kept_is_refused_and_so_is_one_that_goes_on(
    bob: Person, version: DatasetVersion
) -> None:
    nothing = make_run(bob, version, status="FAILED")
    assert refusal(resume(bob, nothing)) == ("NO_CHECKPOINT", None)
    for status in ("QUEUED", "RUNNING"):
        assert refusal(resume(bob, make_run(bob, version, status=status))) == ("RUN_NOT_ENDED", None)
    done = make_run(
        bob, version, status="SUCCEEDED", checkpoint="0001-checkpoint", checkpoint_step=20, checkpoint_bytes=9
    )
    assert refusal(resume(bob, done)) == ("NOTHING_LEFT", "epochs")
    assert refusal(resume(bob, done, epochs=done.config["epochs"])) == ("NOTHING_LEFT", "epochs")
    assert refusal(resume(bob, done, epochs=-1)) == ("INVALID_CONFIG", "epochs")
    assert refusal(resume(bob, done, maxSteps=0)) == ("INVALID_CONFIG", "maxSteps")
    vera = make_person("Vera", bob.organization, Role.VIEWER)
    assert refusal(resume(vera, done, epochs=9)) == ("NOT_ALLOWED", None)
    assert refusal(resume(make_person("Charlie"), done, epochs=9)) == ("NOT_FOUND", None)
    with operator():
        assert TrainingRun.objects.count() == 4


@pytest.mark.parametrize("damage", ["a byte flipped", "a file missing", "the manifest torn", "all gone"])
def test_a_stored_checkpoint_that_is_not_what_it_was_fails_the_run_with_a_reason(
    bob: Person, version: DatasetVersion, damage: str
) -> None:
    first = ended(started(bob, version))
    prefix = f"{first.artefacts}/{first.checkpoint}"
    match damage:
        case "a byte flipped":
            with default_storage.open(f"{prefix}/state.json") as file:
                content = file.read()
            overwrite(f"{prefix}/state.json", content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
        case "a file missing":
            blobs.delete(f"{prefix}/state.json")
        case "the manifest torn":
            overwrite(f"{prefix}/manifest.json", b'{"step": 20, "fi')
        case _:
            blobs.delete_folder(prefix)
    second = resumed(bob, first, maxSteps=30)
    assert (second.status, second.error_code) == ("FAILED", "CHECKPOINT_DAMAGED")
    assert second.error_message == "The checkpoint of the run that this one goes on from is damaged. Start a new run."


def overwrite(key: str, content: bytes) -> None:
    blobs.delete(key)
    default_storage.save(key, ContentFile(content))


def test_old_checkpoints_go_with_what_they_count_and_those_that_are_waited_for_stay(
    bob: Person, version: DatasetVersion, settings: Any
) -> None:
    first = ended(started(bob, version))
    checkpoints.remove_old()
    assert first.checkpoint in blobs.folders(first.artefacts)
    with operator():
        TrainingRun.objects.filter(pk=first.pk).update(
            finished_at=timezone.now() - timedelta(days=settings.CHECKPOINT_DAYS, minutes=5)
        )
    assert resume(bob, first, maxSteps=30)["__typename"] == "TrainingRun"
    checkpoints.remove_old()
    second = newest()
    assert (ended(second).status, first.checkpoint in blobs.folders(first.artefacts)) == ("SUCCEEDED", True)
    checkpoints.remove_old()
    with operator():
        after = TrainingRun.objects.get(pk=first.pk)
    assert (after.checkpoint, after.checkpoint_step, after.checkpoint_bytes) == ("", None, None)
    assert blobs.folders(first.artefacts) == ["0001"]  # its adapter stays
    assert stored_bytes().keys() == {f"checkpoint:{second.pk}"}
    assert refusal(resume(bob, first, maxSteps=30)) == ("NO_CHECKPOINT", None)


def test_what_is_kept_stays_when_the_rest_is_tidied(bob: Person, version: DatasetVersion) -> None:
    failed = ended(started(bob, version, name="user-error 1 ms"))
    default_storage.save(
        f"{failed.artefacts}/0007-checkpoint/manifest.json", ContentFile(b"of an attempt that was lost")
    )
    remove_what_it_left(failed)
    assert blobs.folders(failed.artefacts) == ["0001-checkpoint"]


def test_a_storage_that_takes_nothing_keeps_no_run_from_its_end(
    bob: Person, version: DatasetVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("The bucket is gone.")

    monkeypatch.setattr(checkpoints.blobs, "put_folder", full)
    failed = ended(started(bob, version, name="user-error 1 ms"))
    assert (failed.status, failed.error_code, failed.checkpoint) == ("FAILED", "NOTHING_TO_LEARN", "")
