"""Whoever asked for a job hears how it ended, unless they know, or have left."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import Membership, Role, User
from common.jobs import Job, JobStatus
from common.lookup import api_id
from common.models import OutboxMessage
from common.tenancy import operator, organizations_scope
from datasets.models import DatasetVersion
from tests.cast import Person, make_person
from tests.rows import make_run, make_version
from training.models import TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

RESULT = {
    "steps": 120,
    "first_loss": 3.5,
    "last_loss": 1.21436,
    "eval_loss": 1.4,
    "test_loss": 1.31,
    "base_test_loss": 1.83,
}


@pytest.fixture
def alice() -> Person:
    return make_person("Alice")


def began(seconds_ago: float) -> dict[str, Any]:
    return {"status": "RUNNING", "started_at": timezone.now() - timedelta(seconds=seconds_ago)}


def a_run(person: Person, **fields: Any) -> TrainingRun:
    return make_run(person, make_version(person), **{**began(125), **fields})


def a_version(person: Person, asked_s_ago: float = 10, **fields: Any) -> DatasetVersion:
    version = make_version(person, **{**began(5), **fields})
    with operator():
        DatasetVersion.objects.update(created_at=timezone.now() - timedelta(seconds=asked_s_ago))
    return version


def end(job: Job, status: JobStatus, **changes: Any) -> None:
    """As its worker does."""
    with organizations_scope([job.organization_id]):
        assert type(job).objects.filter(pk=job.pk).move(status, **changes) is not None


def mails() -> list[OutboxMessage]:
    with operator():
        return list(OutboxMessage.objects.order_by("created_at"))


def test_a_run_that_succeeded(alice: Person, settings: Any) -> None:
    settings.PUBLIC_URL = "https://platform.example.com"
    run = a_run(alice, result=RESULT)
    end(run, JobStatus.SUCCEEDED)
    (mail,) = mails()
    assert (mail.event, mail.recipient) == (f"training-run/{run.pk}/SUCCEEDED", "alice@example.com")
    assert mail.organization_id == alice.organization.pk
    assert mail.subject == 'The training run "First" has succeeded'
    assert mail.body.startswith(
        """The training run "First" of Alice's has succeeded after 2 min 5 s.

Base model: platform/python-small
Data: Snippets v1
Steps: 120
Training loss: 1.2144, at first 3.5000
Validation loss: 1.4000
Test loss: 1.3100, of the base model alone 1.8300

Its adapter, and what else there is to know:

  https://platform.example.com/graphql
"""
    )


def test_a_run_that_failed(alice: Person) -> None:
    run = a_run(alice, step=10, total_steps=560)
    end(run, JobStatus.FAILED, error_code="OUT_OF_MEMORY", error_message="It needs <12> GB,\nand there are 8.")
    (mail,) = mails()
    assert (mail.event, mail.recipient) == (f"training-run/{run.pk}/FAILED", "alice@example.com")
    assert mail.subject == 'The training run "First" has failed: OUT_OF_MEMORY'
    assert mail.body.startswith(
        """The training run "First" of Alice's has failed after 2 min 5 s, at step 10 of 560.

OUT_OF_MEMORY
It needs <12> GB,
and there are 8.

Base model: platform/python-small
Data: Snippets v1

It has left nothing to go on from: start a new run once the reason is gone.

What happened before:
"""
    )


def test_a_run_that_failed_after_a_checkpoint_says_how_to_go_on(alice: Person, settings: Any) -> None:
    settings.PUBLIC_URL = "https://platform.example.com"
    at = {"step": 90, "total_steps": 560, "loss": 1.21436, "eval_loss": 1.5, "checkpoint_step": 90}
    run = a_run(alice, **at, checkpoint="0001-checkpoint", checkpoint_bytes=1)
    end(run, JobStatus.FAILED, error_code="BUDGET_SPENT", error_message="Your minutes are used up.")
    (mail,) = mails()
    assert mail.body.startswith(
        f"""The training run "First" of Alice's has failed after 2 min 5 s, at step 90 of 560.

BUDGET_SPENT
Your minutes are used up.

Base model: platform/python-small
Data: Snippets v1
Training loss: 1.2144
Validation loss: 1.5000

What it had reached, step 90, is kept for a while. To go on from there once the reason is gone:

  https://platform.example.com/graphql
  mutation {{ resumeTrainingRun(id: "{api_id(run)}") {{ __typename ... on TrainingRun {{ id }} }} }}

What happened before:
"""
    )
    (mutation,) = re.findall(r"^  (mutation .*)$", mail.body, re.MULTILINE)
    assert alice.data(mutation)["resumeTrainingRun"]["__typename"] == "TrainingRun"


def test_a_version_that_failed(alice: Person) -> None:
    version = a_version(alice)
    end(version, JobStatus.FAILED, error_code="NO_USABLE_ROWS", error_message="None of 3 rows can be used.")
    (mail,) = mails()
    assert mail.event == f"dataset-version/{version.pk}/FAILED"
    assert mail.subject == "Snippets v1 has failed: NO_USABLE_ROWS"
    assert mail.body.startswith(
        """Version 1 of the dataset "Snippets" of Alice's has failed after 5 s.

NO_USABLE_ROWS
None of 3 rows can be used.

File: rows.jsonl
"""
    )


def test_a_version_that_succeeded(alice: Person) -> None:
    splits = [{"name": "TRAIN", "rows": 900, "bytes": 1}, {"name": "TEST", "rows": 100, "bytes": 1}]
    version = a_version(alice, asked_s_ago=70, rows_in=1204, rows_kept=1000, splits=splits)
    end(version, JobStatus.SUCCEEDED)
    (mail,) = mails()
    assert mail.event == f"dataset-version/{version.pk}/SUCCEEDED"
    assert mail.subject == "Snippets v1 is ready"
    assert mail.body.startswith(
        """Version 1 of the dataset "Snippets" of Alice's is ready after 5 s.

Rows: 1000 kept of 1204
Train: 900
Test: 100

"""
    )


@pytest.mark.parametrize(
    ("make", "status"),
    [
        (a_run, JobStatus.CANCELLED),
        (a_version, JobStatus.CANCELLED),
        (lambda person: a_version(person, asked_s_ago=50), JobStatus.SUCCEEDED),
    ],
    ids=["cancelled run", "cancelled version", "version within a minute"],
)
def test_what_somebody_knows_already_is_no_mail(alice: Person, make: Callable[..., Job], status: JobStatus) -> None:
    end(make(alice), status)
    assert mails() == []


@pytest.mark.parametrize("kind", [TrainingRun, DatasetVersion])
@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED])
def test_what_is_unknown_is_left_out(alice: Person, kind: type[Job], status: JobStatus) -> None:
    job = a_run(alice, started_at=None) if kind is TrainingRun else a_version(alice, 90, started_at=None)
    end(job, status)
    (mail,) = mails()
    assert "None" not in mail.subject + mail.body
    prose = mail.body.partition("/graphql")[0]
    assert " ." not in prose and " ," not in prose and ": \n" not in prose and "\n\n\n" not in prose
    assert mail.subject[-1] not in ": "


@pytest.mark.parametrize("kind", [TrainingRun, DatasetVersion])
@pytest.mark.parametrize("status", [JobStatus.SUCCEEDED, JobStatus.FAILED])
def test_the_query_in_a_mail_answers(alice: Person, kind: type[Job], status: JobStatus) -> None:
    job = a_run(alice) if kind is TrainingRun else a_version(alice, 90)
    end(job, status)
    (mail,) = mails()
    (query,) = re.findall(r"^  (\{.*\})$", mail.body, re.MULTILINE)
    (answer,) = alice.data(query).values()
    assert answer is not None


def test_the_keepers_poison_is_told_once(alice: Person) -> None:
    run = a_run(alice)
    with operator():
        TrainingRun.objects.filter(pk=run.pk).move(JobStatus.FAILED, error_code="POISON", error_message="Three times.")
        TrainingRun.objects.get(pk=run.pk).ended()
    assert [mail.event for mail in mails()] == [f"training-run/{run.pk}/FAILED"]


def test_a_transition_that_is_rolled_back_is_no_mail(alice: Person) -> None:
    run = a_run(alice)

    def cause() -> None:
        with operator():
            TrainingRun.objects.filter(pk=run.pk).move(JobStatus.FAILED)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cause()
    assert mails() == []


def leave(person: Person) -> None:
    Membership.objects.filter(user=person.user).delete()


def be_deactivated(person: Person) -> None:
    User.objects.filter(pk=person.user.pk).update(is_active=False)


def be_deleted(person: Person) -> None:
    Membership.objects.filter(user=person.user).delete()
    person.user.delete()


@pytest.mark.parametrize("go", [leave, be_deactivated, be_deleted])
def test_nobody_hears_of_an_organization_that_they_have_left(alice: Person, go: Callable[[Person], None]) -> None:
    bob = make_person("Bob", alice.organization, Role.MEMBER)
    run = a_run(bob)
    with operator():
        go(bob)
    end(run, JobStatus.FAILED)
    assert mails() == []
