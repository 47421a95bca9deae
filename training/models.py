"""Training runs and the adapters that they make."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection, models
from django.db.models import Max, Q

from accounts import audit
from accounts.mails import tell_creator
from accounts.usage import release, settle
from accounts.usage_kinds import UsageKind
from common import blobs
from common.events import JobEvent
from common.jobs import Job, JobStatus
from common.tenancy import TenantQuerySet
from datasets.holds import let_go
from training.measured import Device, TokenCount, TokenCountEvent

__all__ = ["Adapter", "Device", "Executor", "TokenCount", "TokenCountEvent", "TrainingRun", "TrainingRunEvent"]


class Executor(models.TextChoices):
    LOCAL = "LOCAL"


class AdapterStage(models.TextChoices):
    CANDIDATE = "CANDIDATE"
    PRODUCTION = "PRODUCTION"
    ARCHIVED = "ARCHIVED"


class TrainingRunEvent(JobEvent):
    job = models.ForeignKey(
        "training.TrainingRun", on_delete=models.CASCADE, related_name="event_log", db_constraint=False
    )


class TrainingRun(Job):
    """Fine-tuning of a base model on a dataset version. It belongs to its worker, not to whoever watches it."""

    name = models.CharField(max_length=150)
    dataset_version = models.ForeignKey(
        "datasets.DatasetVersion", on_delete=models.PROTECT, related_name="runs", db_constraint=False
    )
    base_model_name = models.CharField(max_length=200)
    base_model_revision = models.CharField(max_length=64)
    executor = models.CharField(max_length=10, choices=Executor.choices, default=Executor.LOCAL)
    config = models.JSONField(help_text="trainer.config.TrainingConfig, with every default filled in.")
    step = models.PositiveIntegerField(default=0)
    total_steps = models.PositiveIntegerField(null=True)
    loss = models.FloatField(null=True)
    eval_loss = models.FloatField(null=True)
    tokens_per_second = models.FloatField(null=True)
    eta_seconds = models.FloatField(null=True, help_text="Until its last step, as things went when that was told.")
    estimate = models.JSONField(null=True, help_text="estimating.Estimate, as it was when it was asked for.")
    result = models.JSONField(null=True, help_text="What the trainer measured, and where.")
    resumed_from = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.PROTECT,
        related_name="resumed_by",
        db_constraint=False,
        help_text="The run whose checkpoint it began with.",
    )
    checkpoint = models.CharField(
        max_length=100,
        default="",
        help_text="The folder below its artefacts of the state that it ended in, while that is kept.",
    )
    checkpoint_step = models.PositiveIntegerField(null=True)
    checkpoint_bytes = models.BigIntegerField(null=True)

    queue = "training"
    event_model: ClassVar[type[JobEvent]] = TrainingRunEvent
    productive_kinds: ClassVar[frozenset[str]] = frozenset({"CheckpointSaved"})

    def __str__(self) -> str:
        return self.name

    @classmethod
    def running_cap(cls) -> int:
        cap: int = settings.CONCURRENT_RUNS
        return cap

    @classmethod
    def follows_from(cls, events: list[dict[str, Any]]) -> dict[str, Any]:
        """Its present figures, from its trainer's newest events."""
        changes: dict[str, Any] = {}
        for event in events:
            if event["kind"] == "StepLogged":
                names = ("step", "total_steps", "loss", "tokens_per_second", "eta_seconds")
                changes |= {name: event[name] for name in names if event.get(name) is not None}
            elif event["kind"] == "Evaluated" and event.get("eval_loss") is not None:
                changes["eval_loss"] = event["eval_loss"]
        return changes

    def how_far(self) -> str:
        return f"step {self.step}/{self.total_steps}" if self.total_steps else ""

    def keeps(self) -> set[str]:
        return super().keeps() | ({self.checkpoint} if self.checkpoint else set())

    def ended(self) -> None:
        """Settle what it has used, let its data go, and tell its creator, unless they ended it themselves."""
        release(self.organization_id, UsageKind.RUNS, key=self.usage_key)
        let_go(self.organization_id, holder=self.usage_key)
        if seconds := self.seconds_at_work():
            settle(self.organization_id, UsageKind.TRAINING_SECONDS, seconds, key=self.usage_key)
        if self.checkpoint:
            settle(
                self.organization_id, UsageKind.STORAGE_BYTES, self.checkpoint_bytes or 0, key=self.checkpoint_usage_key
            )
        for adapter in Adapter.objects.filter(training_run=self):
            settle(self.organization_id, UsageKind.STORAGE_BYTES, adapter.size_bytes, key=f"adapter:{adapter.pk}")
        if self.status != JobStatus.CANCELLED:
            tell_creator(self, f"training_run_{self.status.lower()}")

    def seconds_at_work(self) -> int:
        """How long it was RUNNING, all attempts together: what lay between them in the queue is not its own time."""
        changes = self.event_log.filter(kind="StatusChanged").order_by("sequence")
        return round(time_at_work(changes.values_list("data__status", "at")).total_seconds())

    @property
    def usage_key(self) -> str:
        return f"run:{self.pk}"

    @property
    def checkpoint_usage_key(self) -> str:
        return f"checkpoint:{self.pk}"

    def operated(self, verb: str, actor: str) -> None:
        audit.record(self.organization_id, actor=actor, action=f"run.{verb}", target=f"run:{self.pk}")

    @property
    def artefacts(self) -> str:
        return blobs.key(self.organization_id, "adapters", self.pk)


def time_at_work(changes: Iterable[tuple[str, datetime]], now: datetime | None = None) -> timedelta:
    """The time RUNNING of one run, of whose statuses these are all, in order; `now` ends one that lasts."""
    total, since = timedelta(), None
    for status, at in changes:
        if since is not None:
            total += at - since
        since = at if status == JobStatus.RUNNING else None
    return total + (now - since) if since is not None and now is not None else total


class AdapterQuerySet(TenantQuerySet):
    def in_production(self, organization_id: UUID, name: str) -> AdapterQuerySet:
        """The one of this name, or none."""
        return self.filter(organization_id=organization_id, name=name, stage=AdapterStage.PRODUCTION)

    def measured_beside(self, organization_id: UUID, name: str, base_model: tuple[str, str]) -> AdapterQuerySet:
        """The one in production that a run of this name measures beside its own: of the same base model and revision."""
        base_name, revision = base_model
        found = self.in_production(organization_id, name)
        return found.filter(base_model_name=base_name, base_model_revision=revision)


class Adapter(models.Model):
    """The result of a run: weights in safetensors, with the digest that every prediction made with it repeats."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="+")
    training_run = models.OneToOneField(
        TrainingRun, null=True, on_delete=models.PROTECT, related_name="adapter", db_constraint=False
    )
    created_at = models.DateTimeField(auto_now_add=True)
    name = models.CharField(max_length=150)
    version = models.PositiveIntegerField()
    base_model_name = models.CharField(max_length=200)
    base_model_revision = models.CharField(max_length=64)
    digest = models.CharField(max_length=64, db_index=True)
    size_bytes = models.BigIntegerField()
    storage_prefix = models.CharField(max_length=300)
    eval_loss = models.FloatField(null=True)
    test_loss = models.FloatField(null=True)
    base_test_loss = models.FloatField(null=True)
    stage = models.CharField(max_length=10, choices=AdapterStage.choices, default=AdapterStage.CANDIDATE)
    production_digest = models.CharField(
        max_length=64,
        default="",
        help_text="Of the adapter that its run measured beside it: the one in production when that began.",
    )
    production_test_loss = models.FloatField(null=True, help_text="That adapter's loss on the same test rows.")
    card = models.TextField()

    objects = AdapterQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.UniqueConstraint(fields=["organization", "name", "version"], name="adapter_version"),
            models.UniqueConstraint(
                fields=["organization", "name"], condition=Q(stage="PRODUCTION"), name="adapter_in_production"
            ),
        ]
        indexes = [models.Index(fields=["organization", "-created_at", "-id"], name="adapter_newest")]

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"

    @classmethod
    def next_version(cls, organization_id: UUID, name: str) -> int:
        """The number for a further adapter of this name, the caller's alone until its transaction ends."""
        cls.hold_name(organization_id, name)
        named = cls.objects.filter(organization_id=organization_id, name=name)
        highest: int | None = named.aggregate(Max("version"))["version__max"]
        return (highest or 0) + 1

    @staticmethod
    def hold_name(organization_id: UUID, name: str) -> None:
        """Until the caller's transaction ends nobody else adds an adapter of this name, or puts one into production."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s))", [name, str(organization_id)])
