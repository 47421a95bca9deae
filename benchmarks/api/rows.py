"""What is asked for: a run with its adapter among a hundred, and a million runs of another organization."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from accounts.models import Membership, Organization, Role, User
from accounts.tokens import issue_session
from benchmarks.harness import told
from benchmarks.multiply import gather_statistics, multiply
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Upload
from training.models import Adapter, TrainingRun
from training.trainer.config import TrainingConfig

BATCH = 100_000
FEW = 100


class Rows:
    """Each organization has one person, who sees its runs."""

    def __init__(self) -> None:
        self._people: dict[str, User] = {}

    def fill(self, many: int) -> dict[str, str]:
        """The key of the one run that is asked for by itself."""
        begun = time.monotonic()
        with operator():
            few, many_of = self._team("few"), self._team("many")
            _adapter(few)
        multiply(TrainingRun.objects.filter(pk=few.pk), range(1, FEW), **_older("1 second"))
        for start in range(1, many, BATCH):
            made = range(start, min(start + BATCH, many))
            multiply(TrainingRun.objects.filter(pk=many_of.pk), made, **_older("1 second"))
            told(rows=made.stop, seconds=time.monotonic() - begun)
        gather_statistics()
        return {"run": str(few.pk)}

    def tokens(self) -> dict[str, str]:
        """Access tokens for the next ten minutes."""
        with operator():
            return {name: issue_session(person).access_token for name, person in self._people.items()}

    def _team(self, name: str) -> TrainingRun:
        """An organization with its person, and a run."""
        organization = Organization.objects.create(name=name, slug=uuid4().hex)
        person = self._people[name] = User.objects.create(email=f"{name}@example.com", name=name)
        Membership.objects.create(organization=organization, user=person, role=Role.MEMBER)
        mine: dict[str, Any] = {"organization": organization}
        version = DatasetVersion.objects.create(
            **mine,
            dataset=Dataset.objects.create(**mine, name="Functions"),
            upload=Upload.objects.create(**mine, file_name="functions.jsonl", size_bytes=0),
            number=1,
            recipe={},
            fingerprint="",
            status="SUCCEEDED",
        )
        return TrainingRun.objects.create(
            **mine,
            name=f"{name} 0",
            created_by=person,
            dataset_version=version,
            base_model_name="platform/python-small",
            base_model_revision="1",
            config=TrainingConfig().to_json(),
            status="SUCCEEDED",
            step=100,
            total_steps=100,
            loss=1.25,
            eval_loss=1.5,
        )


def _older(each: str) -> dict[str, str]:
    return {"created_at": f"original.created_at - number * interval '{each}'", "name": "'run ' || number"}


def _adapter(run: TrainingRun) -> None:
    Adapter.objects.create(
        organization=run.organization,
        training_run=run,
        name=run.name,
        version=1,
        base_model_name=run.base_model_name,
        base_model_revision=run.base_model_revision,
        digest="0" * 64,
        size_bytes=6_400_000,
        storage_prefix="",
        test_loss=1.5,
        base_test_loss=2.5,
        card="# A card",
    )
