"""`manage.py train`, as an operator uses it. The trainer is the stand-in of the fault tests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from accounts.models import AuditEntry
from common.lookup import api_id
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import Person
from tests.commands import said_by
from tests.faults.witness import WITNESS
from tests.processes import start_python
from tests.rows import make_dataset, make_version, stored_version
from training.management.commands import train
from training.models import TrainingRun
from training.run_screen import RunScreen

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet_queues")]

PATIENCE_S = 60.0
WORKER = """
import time
from common.tenancy import operator
from training.executors import local
from training.models import TrainingRun
from training.tasks import work
local.TRAINER = "tests.faults.trainer"
while True:
    with operator():
        if TrainingRun.objects.filter(status="QUEUED").exists():
            break
    time.sleep(0.05)
work()
"""


@pytest.fixture
def version(bob: Person) -> DatasetVersion:
    return stored_version(bob)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[None]:
    """Carries out the first run that is queued."""
    process = start_python(WORKER, **{WITNESS: str(tmp_path)})
    yield
    try:
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()


def run_command(capfd: Any, *arguments: object) -> tuple[int, list[str], str]:
    """Exit status, lines of output, and errors."""
    return said_by(capfd, "train", *arguments)


def only_run() -> TrainingRun:
    with operator():
        return TrainingRun.objects.get()


def test_a_run_is_queued_with_what_was_chosen(version: DatasetVersion, capfd: Any) -> None:
    chosen = ["maxSteps=20", "learning-rate=1e-3", "targetModules=v_proj, q_proj", "scheduler=LINEAR", "packing=false"]
    status, output, errors = run_command(
        capfd, version.pk.hex[:8], "--name", "Adds", *(part for each in chosen for part in ("--set", each))
    )
    run = only_run()
    assert (status, errors) == (0, "")
    assert output == [
        f"Queued as {run.pk.hex[:8]}: Adds",
        output[1],
        f"In the API: {api_id(run)}",
        f"To look:   manage.py jobs show {run.pk.hex[:8]}",
        f"To cancel: manage.py jobs cancel {run.pk.hex[:8]}",
    ]
    assert output[1].startswith("Its page:  ") and output[1].endswith(f"/admin/training/trainingrun/{run.pk}/change/")
    assert (run.name, run.created_by_id, run.dataset_version_id) == ("Adds", None, version.pk)
    config = {
        name: run.config[name] for name in ("max_steps", "learning_rate", "target_modules", "scheduler", "packing")
    }
    assert config == {
        "max_steps": 20,
        "learning_rate": 0.001,
        "target_modules": ["q_proj", "v_proj"],
        "scheduler": "LINEAR",
        "packing": False,
    }
    with operator():
        entry = AuditEntry.objects.get(organization_id=run.organization_id)
    assert (entry.action, entry.actor, entry.target) == ("run.create", "command", f"run:{run.pk}")


def test_whoever_waits_sees_its_steps_and_its_adapter(version: DatasetVersion, worker: None, capfd: Any) -> None:
    status, output, errors = run_command(
        capfd, api_id(version.dataset), "--name", "plain 40 ms", "--set", "maxSteps=20", "--set", "seed=3", "--wait"
    )
    assert (status, errors) == (0, ""), output
    steps = [line for line in output if line.startswith("  step ")]
    assert 2 <= len(steps) <= 10
    assert steps[-1] == "  step 20 of 20, loss 0.0500"
    with operator():
        digest = only_run_adapter_digest()
    assert f"SUCCEEDED: adapter plain 40 ms:1, digest {digest}" in output
    assert not any("To cancel" in line for line in output)


def only_run_adapter_digest() -> str:
    digest: str = TrainingRun.objects.select_related("adapter").get().adapter.digest
    return digest


def test_a_run_that_fails_says_why_and_so_does_the_exit_status(
    version: DatasetVersion, worker: None, capfd: Any
) -> None:
    status, output, _ = run_command(capfd, version.pk, "--name", "user-error 1 ms", "--set", "maxSteps=4", "--wait")
    assert status == 1
    assert "FAILED: There is nothing to learn from these rows." in output


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("maxStep=5", "--set maxStep=5: a recipe has no maxStep; did you mean maxSteps?"),
        ("maxSteps", "--set maxSteps: write NAME=VALUE, as in --set maxSteps=100."),
        ("maxSteps=many", "--set maxSteps: Must be a whole number or null."),
        ("learningRate=2", "--set learningRate: 2.0 is not from 0 to 1."),
        ("targetModules=w", "--set targetModules: Choose one or more of q_proj, k_proj, v_proj, o_proj, c_fc, c_proj."),
    ],
)
def test_a_choice_that_cannot_be_is_refused(version: DatasetVersion, capfd: Any, choice: str, said: str) -> None:
    assert run_command(capfd, version.pk, "--set", choice) == (1, [], said + "\n")
    with operator():
        assert not TrainingRun.objects.exists()


def test_what_there_is_not_is_said(bob: Person, version: DatasetVersion, capfd: Any) -> None:
    status, _, errors = run_command(capfd, "00ff00ff")
    assert (status, errors) == (
        1,
        "No dataset's or version's id begins with 00ff00ff: `manage.py jobs --all` lists them.\n",
    )
    queued = make_version(bob, make_dataset(bob, "Other"), status="QUEUED")
    status, _, errors = run_command(capfd, queued.pk)
    assert status == 1 and "wait until it is made" in errors
    status, _, errors = run_command(capfd, version.pk, "--base-model", "gpt-5")
    assert status == 1 and "gpt-5" in errors


def test_on_a_terminal_a_bar_moves() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = RunScreen(Terminal())
    assert screen.moves
    with screen.steps() as steps:
        steps.take("StepLogged", {"step": 30, "total_steps": 60, "loss": 1.25, "tokens_per_second": 1234.0})
        steps.take("Evaluated", {"step": 30, "eval_loss": None})
        steps.take("SampleGenerated", {"step": 30, "prompt": "def add(a,\n  b):", "continuation": "\n    return a"})
        steps.take("LogLine", {"text": "Going on from step 20"})
    shown = screen.console.file.getvalue()  # type: ignore[attr-defined]
    assert "step 30 of 60, loss 1.2500, 1,234 tokens/s" in shown
    assert "step 30: validation loss not finite" in shown
    assert "def add(a, b): -> return a" in shown
    assert "Going on from step 20" in shown


def test_all_choices_of_a_recipe_can_be_named() -> None:
    assert train.CHOICES["maxSteps"] == "max_steps" and len(train.CHOICES) == 22
