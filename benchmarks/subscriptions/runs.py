"""Running training runs of many organizations, and who watches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from uuid import uuid4

from strawberry import relay

from accounts.models import Membership, Organization, Role, User
from accounts.tokens import issue_session
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Upload
from training.models import TrainingRun, TrainingRunEvent
from training.trainer.config import TrainingConfig

RUNS_AN_ORGANIZATION = 10


@dataclass(frozen=True)
class Runs:
    """Each organization has as many people as runs."""

    runs: list[TrainingRun]
    people: dict[Any, list[User]]  # by organization

    @classmethod
    def make(cls, count: int) -> Self:
        """Queued, for a worker to claim."""
        runs: list[TrainingRun] = []
        people: dict[Any, list[User]] = {}
        with operator():
            for _ in range(count // RUNS_AN_ORGANIZATION):
                organization = Organization.objects.create(name="O", slug=uuid4().hex)
                people[organization.pk] = [_person(organization) for _ in range(RUNS_AN_ORGANIZATION)]
                version = _version(organization)
                runs += [_run(version) for _ in range(RUNS_AN_ORGANIZATION)]
        return cls(runs, people)

    def clients(self, each: int) -> list[tuple[str, str, str]]:
        """`each` watchers of each run: the run's key, its global id, and a fresh access token of somebody who may see it."""
        with operator():
            tokens = {key: [issue_session(user).access_token for user in users] for key, users in self.people.items()}
        return [
            (
                str(run.pk),
                relay.to_base64("TrainingRun", run.pk),
                tokens[run.organization_id][number % RUNS_AN_ORGANIZATION],
            )
            for number in range(each)
            for run in self.runs
        ]

    def log(self) -> dict[str, list[list[int]]]:
        """By run, all [sequence, step] in order; step 0 for what is no step."""
        log: dict[str, list[list[int]]] = {str(run.pk): [] for run in self.runs}
        with operator():
            events = TrainingRunEvent.objects.order_by("job_id", "sequence")
            for job_id, sequence, step in events.values_list("job_id", "sequence", "data__step"):
                log[str(job_id)].append([sequence, step or 0])
        return log

    def last_sequences(self) -> dict[str, int]:
        with operator():
            return {str(key): last for key, last in TrainingRun.objects.values_list("pk", "last_sequence")}


def _person(organization: Organization) -> User:
    user = User.objects.create(email=f"{uuid4().hex}@example.com")
    Membership.objects.create(organization=organization, user=user, role=Role.MEMBER)
    return user


def _version(organization: Organization) -> DatasetVersion:
    dataset = Dataset.objects.create(organization=organization, name="D")
    upload = Upload.objects.create(organization=organization, file_name="f", size_bytes=0)
    return DatasetVersion.objects.create(
        organization=organization,
        dataset=dataset,
        upload=upload,
        number=1,
        recipe={},
        fingerprint="",
        status="SUCCEEDED",
    )


def _run(version: DatasetVersion) -> TrainingRun:
    run = TrainingRun.objects.create(
        organization=version.organization,
        name="R",
        dataset_version=version,
        base_model_name="platform/python-small",
        base_model_revision="1",
        config=TrainingConfig().to_json(),
    )
    run.created()
    return run
