"""What estimates are made of: the lengths of a version's rows in a base model's tokens, and the devices of training hosts."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from accounts import audit
from common import blobs
from common.events import JobEvent
from common.jobs import Job, JobStatus
from datasets.models import DatasetVersion

ENDED_BADLY = [JobStatus.FAILED, JobStatus.CANCELLED]


class TokenCountEvent(JobEvent):
    job = models.ForeignKey(
        "training.TokenCount", on_delete=models.CASCADE, related_name="event_log", db_constraint=False
    )


class TokenCount(Job):
    """Counts the tokens of a version's rows once for each base model: what every estimate of a run of the two begins with."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    base_model_name = models.CharField(max_length=200)
    base_model_revision = models.CharField(max_length=64)
    splits = models.JSONField(null=True, help_text="By split, trainer.counting.Lengths.")

    queue = "datasets"
    event_model: ClassVar[type[JobEvent]] = TokenCountEvent

    class Meta(Job.Meta):
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "version", "base_model_name", "base_model_revision"],
                condition=~Q(status__in=ENDED_BADLY),
                name="one_count_of_each_version_and_base",
            )
        ]
        indexes = [index.clone() for index in Job.Meta.indexes]

    def __str__(self) -> str:
        return f"Tokens of {self.version} for {self.base_model_name}"

    @classmethod
    def running_cap(cls) -> int:
        return 1

    @property
    def artefacts(self) -> str:
        return blobs.key(self.organization_id, "token-counts", self.pk)

    def operated(self, verb: str, actor: str) -> None:
        audit.record(self.organization_id, actor=actor, action=f"count.{verb}", target=f"count:{self.pk}")


class Device(models.Model):
    """What training a base model costs on a host, as it was measured since that has booted. It is no organization's."""

    host = models.CharField(max_length=255)
    base_model_name = models.CharField(max_length=200)
    base_model_revision = models.CharField(max_length=64)
    identity = models.CharField(
        max_length=200, help_text="Of the boot, and of what else would make it another measurement."
    )
    name = models.CharField(max_length=200, help_text="As a run's environment calls it.")
    kind = models.CharField(max_length=10, help_text="cpu or cuda.")
    costs = models.JSONField(help_text="trainer.costs.Costs")
    measured_at = models.DateTimeField()
    seen_at = models.DateTimeField(help_text="When the host last had workers that train.")

    class Meta:
        ordering = ["-seen_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["host", "base_model_name", "base_model_revision"], name="one_device_of_each_host_and_base"
            )
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.host}"
