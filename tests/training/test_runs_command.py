"""`manage.py runs`, as an operator uses it. The trainer is the stand-in of the fault tests."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import AuditEntry
from common.claims import claim
from common.lookup import api_id
from common.tenancy import operator
from tests.cast import Person, make_person
from tests.commands import said_by
from tests.rows import make_adapter, make_run, make_version
from training.models import TrainingRun

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("quiet_queues")]


@pytest.fixture(autouse=True)
def _no_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest-xdist sets it


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def runs(capfd: Any, *arguments: object) -> tuple[int, list[str], str]:
    """Exit status, lines of output, and errors."""
    return said_by(capfd, "runs", *arguments)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def at_work(person: Person, **fields: Any) -> TrainingRun:
    now = timezone.now()
    figures = {"step": 1_200, "total_steps": 8_000, "loss": 1.23456, "eval_loss": 1.5, "tokens_per_second": 1234.5}
    begun = {"status": "RUNNING", "started_at": now - timedelta(minutes=61), "eta_seconds": 305.0}
    return make_run(person, **{**figures, **begun, "name": "Django's functions", **fields})


def test_it_lists_the_newest_first_with_what_they_have_come_to(ada: Person, capfd: Any) -> None:
    assert runs(capfd) == (0, ["No runs."], "")
    running = at_work(ada)
    failed = make_run(ada, running.dataset_version, name="Worse", status="FAILED", error_code="NUMERICS")
    status, output, errors = runs(capfd)
    assert (status, errors) == (0, "")
    heading, first, second = map(cells, output)
    assert heading == ["ID", "ORGANIZATION", "NAME", "STATUS", "FOR", "STEP", "LOSS", "VALIDATION", "TOKENS/S", "LEFT"]
    assert first[:4] == [failed.pk.hex[:8], "Ada's", "Worse", "FAILED: NUMERICS"] and first[5:] == ["-"] * 5
    assert second == [
        *(running.pk.hex[:8], "Ada's", "Django's functions", "RUNNING", "1 h"),
        *("1,200/8,000", "1.2346", "1.5000", "1,234", "5 min 5 s"),
    ]


def test_it_lists_those_that_are_asked_for(ada: Person, capfd: Any) -> None:
    bob = make_person("Bob")
    for person in (ada, bob):
        for status in ("QUEUED", "SUCCEEDED", "CANCELLED"):
            make_run(person, name=f"{person.user.name} {status}", status=status)

    def named(*arguments: object) -> list[str]:
        return [cells(line)[2] for line in runs(capfd, *arguments)[1][1:]]

    assert len(named()) == 6
    assert named("--organization", "Ada's") == ["Ada CANCELLED", "Ada SUCCEEDED", "Ada QUEUED"]
    assert named("--status", "queued", "--status", "CANCELLED", "--organization", "bob's") == [
        "Bob CANCELLED",
        "Bob QUEUED",
    ]
    assert runs(capfd, "--limit", 2)[1][-1] == "and 4 more: --limit 0 shows all"
    assert runs(capfd, "--organization", "Eve's") == (1, [], "No organization is called Eve's.\n")


def test_scripts_read_the_same_as_json(ada: Person, capfd: Any) -> None:
    run = at_work(ada, estimate={"seconds": 4_000})
    (found,) = json.loads("\n".join(runs(capfd, "--json")[1]))
    assert (found["id"], found["organization"]["name"], found["status"]) == (str(run.pk), "Ada's", "RUNNING")
    assert (found["step"], found["eta_seconds"], found["estimate"]) == (1_200, 305.0, {"seconds": 4_000})
    with operator():
        TrainingRun.objects.update(status="FAILED")
    (ended,) = json.loads("\n".join(runs(capfd, "--json")[1]))
    assert (ended["status"], ended["eta_seconds"]) == ("FAILED", None)


def test_one_that_has_ended_is_told_at_once(ada: Person, capfd: Any) -> None:
    run = make_run(ada, status="SUCCEEDED", step=4, total_steps=4)
    adapter = make_adapter(ada, run, test_loss=1.25, base_test_loss=1.5)
    status, output, errors = runs(capfd, "--watch", api_id(run))
    assert (status, errors) == (0, "")
    assert output[:3] == [
        f"{run.pk.hex[:8]} First: SUCCEEDED",
        f"SUCCEEDED: adapter First:1, digest {adapter.digest}",
        "Test loss: 1.2500, of the base model 1.5000",
    ]
    failed = make_run(ada, status="FAILED", error_code="NUMERICS", error_message="It was not finite.")
    status, output, _ = runs(capfd, "--watch", failed.pk.hex[:12])
    assert (status, output[1]) == (1, "FAILED: It was not finite.")


def test_it_cancels_each_and_says_what_became_of_it(ada: Person, capfd: Any) -> None:
    running, queued, ended = make_run(ada), make_run(ada), make_run(ada, status="FAILED")
    with operator():
        TrainingRun.objects.exclude(pk=running.pk).update(due_at=timezone.now() + timedelta(hours=1))
    assert claim(TrainingRun, "worker:1")
    status, output, errors = runs(capfd, "cancel", running.pk, queued.pk, ended.pk)
    assert status == 1
    assert output == [
        f"{running.pk.hex[:8]} First: asked to stop, which may take 30 seconds",
        f"{queued.pk.hex[:8]} First: cancelled",
    ]
    assert f"{ended.pk.hex[:8]} First: It has ended as FAILED" in errors
    with operator():
        assert AuditEntry.objects.filter(action="run.cancel", actor="command").count() == 2
        assert TrainingRun.objects.get(pk=queued.pk).status == "CANCELLED"


def test_a_job_of_another_kind_is_refused(ada: Person, capfd: Any) -> None:
    version = make_version(ada, status="QUEUED")
    said = f"{version.pk} is no training run: it is Snippets v1, in the queue datasets.\n"
    assert runs(capfd, "cancel", version.pk) == (1, [], said)
    assert runs(capfd, "--watch", version.pk) == (1, [], said)
