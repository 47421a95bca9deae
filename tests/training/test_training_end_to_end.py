"""A run by the real worker and the real trainer, from a dataset version to an adapter in storage.

Each start of a trainer costs seconds of imports.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.files.storage import default_storage

from common.tenancy import operator
from datasets import tasks as dataset_tasks
from tests.cast import Person, make_person
from tests.processes import start_python
from tests.rows import BASE, global_id, make_upload
from training import tasks as training_tasks
from training.models import Adapter, TrainingRun
from training.trainer.artifact import adapter_digest

ROWS = [
    {"prompt": f"def add_{number}(value):\n", "completion": f"    return value + {number}\n"} for number in range(120)
]
CREATE = """
mutation ($upload: ID!) { createDataset(input: {name: "Additions", uploadId: $upload}) {
  ... on DatasetVersion { id }
} }
"""
START = """
mutation ($version: ID!, $config: TrainingConfigInput!) {
  startTrainingRun(input: {datasetVersionId: $version, name: "Adds", config: $config}) { ... on TrainingRun { id } }
}
"""
LOOK = """
query ($id: ID!) { trainingRun(id: $id) {
  status attempt errorCode errorMessage step totalSteps loss evalLoss tokensPerSecond startedAt finishedAt
  checkpoints { step sizeBytes sha256 }
  adapter { name version digest sizeBytes evalLoss testLoss baseTestLoss card baseModel { name } trainingRun { id } }
  events(first: 5000) {
    __typename sequence
    ... on StatusChanged { status reason }
    ... on StepLogged { step totalSteps loss learningRate tokensPerSecond }
    ... on Evaluated { step evalLoss }
    ... on CheckpointSaved { step sha256 }
    ... on LogLine { level text }
  }
} }
"""
SMALL = {"batchSize": 2, "maxSequenceTokens": 64, "loraRank": 4, "learningRate": 0.01}
WORKER = """
import sys, time
from common.jobs import ENDED
from common.tenancy import operator
from training.models import TrainingRun
from training.tasks import work

while True:
    work()
    with operator():
        if TrainingRun.objects.get().status in ENDED:
            sys.exit(0)
    time.sleep(0.1)  # a requeued job is due a few seconds later
"""

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture(autouse=True)
def _one_thread(settings: Any) -> None:
    settings.TRAINER_THREADS = 1


def start_run(person: Person, **config: Any) -> str:
    """Make a dataset version by the real pipeline, and queue a run of it; returns the run's id."""
    upload = make_upload(person, "\n".join(json.dumps(row) for row in ROWS).encode())
    version = person.data(CREATE, upload=global_id(upload))["createDataset"]["id"]
    dataset_tasks.work()
    return person.data(START, version=version, config={**SMALL, **config})["startTrainingRun"]["id"]


def look(person: Person, run: str) -> dict[str, Any]:
    return person.data(LOOK, id=run)["trainingRun"]


def of_kind(seen: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [event for event in seen["events"] if event["__typename"] == kind]


def stored_adapter(folder: Path) -> Path:
    """The adapter's files out of storage."""
    with operator():
        prefix = Adapter.objects.get().storage_prefix
    _, names = default_storage.listdir(prefix)
    for name in names:
        with default_storage.open(f"{prefix}/{name}") as file:
            (folder / name).write_bytes(file.read())
    return folder


def test_a_run_of_six_steps_leaves_an_adapter_and_tells_all_on_the_way(ada: Person, tmp_path: Path) -> None:
    run = start_run(ada, maxSteps=6, evalEverySteps=3, checkpointEverySteps=3)
    training_tasks.work()
    seen = look(ada, run)
    assert (seen["status"], seen["attempt"], seen["errorMessage"]) == ("SUCCEEDED", 1, None)
    assert (seen["step"], seen["totalSteps"]) == (6, 6)

    steps = of_kind(seen, "StepLogged")
    numbers = [event["step"] for event in steps]  # the trainer tells of the first, the last, and some a second
    assert (numbers[0], numbers[-1], numbers) == (1, 6, sorted(set(numbers)))
    assert {event["totalSteps"] for event in steps} == {6}
    assert all(event["loss"] > 0 and event["tokensPerSecond"] > 0 for event in steps)
    assert seen["loss"] == steps[-1]["loss"] < steps[0]["loss"]
    assert [event["step"] for event in of_kind(seen, "Evaluated")] == [3, 6]
    assert seen["evalLoss"] == of_kind(seen, "Evaluated")[-1]["evalLoss"]
    saved = [(event["step"], event["sha256"]) for event in of_kind(seen, "CheckpointSaved")]
    assert [step for step, _ in saved] == [3, 6]
    assert [(one["step"], one["sha256"]) for one in seen["checkpoints"]] == saved
    assert [event["status"] for event in of_kind(seen, "StatusChanged")] == ["QUEUED", "RUNNING", "SUCCEEDED"]
    assert [event["sequence"] for event in seen["events"]] == list(range(1, len(seen["events"]) + 1))
    assert seen["events"][-1]["__typename"] == "StatusChanged"

    adapter = seen["adapter"]
    files = stored_adapter(tmp_path)
    assert sorted(path.name for path in files.glob("*.*")) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert adapter["digest"] == adapter_digest(files)
    assert adapter["sizeBytes"] == (files / "adapter_model.safetensors").stat().st_size
    assert adapter["card"] == (files / "README.md").read_text()
    assert (adapter["name"], adapter["version"], adapter["baseModel"]) == ("Adds", 1, {"name": BASE})
    assert adapter["testLoss"] < adapter["baseTestLoss"]
    assert adapter["trainingRun"] == {"id": run}
    with operator():
        row = TrainingRun.objects.get()
    assert (row.result["steps"], row.result["test_loss"]) == (6, adapter["testLoss"])
    assert not (django_settings.ATTEMPTS_ROOT / str(row.pk)).exists()


@pytest.mark.faults
@pytest.mark.slow
def test_a_trainer_killed_with_9_is_requeued_and_finishes_from_its_checkpoint(ada: Person) -> None:
    run = start_run(ada, epochs=100, maxSteps=60, checkpointEverySteps=10, evalEverySteps=60)
    worker = start_python(WORKER, TRAINER_THREADS="1")
    try:
        killed = _kill_after_a_checkpoint(worker)
        assert worker.wait(timeout=90) == 0
    finally:
        worker.kill()
        worker.wait()
    seen = look(ada, run)
    assert (seen["status"], seen["attempt"], seen["step"], seen["errorCode"]) == ("SUCCEEDED", 2, 60, None)
    changes = [(event["status"], event["reason"]) for event in of_kind(seen, "StatusChanged")]
    assert changes == [
        ("QUEUED", None),
        ("RUNNING", None),
        ("QUEUED", "Its process ended without a result (killed by SIGKILL)."),
        ("RUNNING", None),
        ("SUCCEEDED", None),
    ]
    requeued = next(event["sequence"] for event in of_kind(seen, "StatusChanged") if event["reason"])
    before = [event for event in seen["events"] if event["sequence"] < requeued]
    after = [event for event in seen["events"] if event["sequence"] > requeued]
    newest = max(event["step"] for event in before if event["__typename"] == "CheckpointSaved")
    texts = [event["text"] for event in after if event["__typename"] == "LogLine"]
    (resumed,) = [int(text.split()[-1]) for text in texts if text.startswith("Going on from step ")]
    assert 10 <= newest <= resumed  # killed between a checkpoint and its event, it goes on from the checkpoint
    assert resumed % 10 == 0
    steps = [event["step"] for event in after if event["__typename"] == "StepLogged"]
    assert (steps[0], steps[-1], steps) == (resumed + 1, 60, sorted(set(steps)))
    assert seen["adapter"]["version"] == 1
    assert not Path(f"/proc/{killed}").exists()


def _kill_after_a_checkpoint(worker: subprocess.Popen[str]) -> int:
    """kill -9 the trainer's process group as soon as a checkpoint has been logged; returns its number."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert worker.poll() is None, "the worker ended before there was anything to kill"
        with operator():
            row = TrainingRun.objects.get()
            saved = row.event_log.filter(kind="CheckpointSaved").exists()
        if saved:
            assert row.status == "RUNNING"
            group = int(row.process["pid"])
            os.killpg(group, signal.SIGKILL)
            return group
        time.sleep(0.05)
    raise AssertionError("no checkpoint was saved")
