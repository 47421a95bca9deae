"""Uploads, datasets, and their versions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar, Self
from uuid import UUID, uuid4

from django.conf import settings
from django.db import models
from django.db.models import F, Max, Q
from django.utils import timezone

from accounts import audit
from accounts.mails import tell_creator
from accounts.usage import settle
from accounts.usage_kinds import UsageKind
from common import blobs
from common.events import JobEvent
from common.jobs import Job, JobStatus
from common.tenancy import TenantQuerySet
from datasets.pipeline.shares import overall

LONG_WAIT = timedelta(minutes=1)


class UploadStatus(models.TextChoices):
    WAITING = "WAITING"
    RECEIVING = "RECEIVING"
    COMPLETE = "COMPLETE"
    EXPIRED = "EXPIRED"


def upload_expiry() -> Any:
    lifetime: timedelta = settings.UPLOAD_LIFETIME
    return timezone.now() + lifetime


class UploadQuerySet(TenantQuerySet):
    """Given up is what expires with its creation, by whatever clock."""

    def give_up(self) -> int:
        """How many there were."""
        return self.update(expires_at=F("created_at"), received_bytes=0)

    def not_given_up(self) -> Self:
        return self.filter(expires_at__gt=F("created_at"))


class Upload(models.Model):
    """A file as its user sent it. The name is what they called it; the key where it lies owes nothing to that."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="+")
    created_by = models.ForeignKey("accounts.User", null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(default=upload_expiry)
    file_name = models.CharField(max_length=300)
    size_bytes = models.BigIntegerField()
    expected_sha256 = models.CharField(max_length=64, blank=True, default="")
    received_bytes = models.BigIntegerField(default=0)
    sha256 = models.CharField(max_length=64, null=True)
    completed_at = models.DateTimeField(null=True)
    storage_key = models.CharField(max_length=300, blank=True, default="")

    objects = UploadQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["organization", "-created_at", "-id"], name="upload_newest")]

    def __str__(self) -> str:
        return self.file_name

    @property
    def status(self) -> UploadStatus:
        if self.completed_at is not None:
            return UploadStatus.COMPLETE
        if self.expires_at <= timezone.now():
            return UploadStatus.EXPIRED
        return UploadStatus.RECEIVING if self.received_bytes else UploadStatus.WAITING

    @property
    def was_given_up(self) -> bool:
        was: bool = self.expires_at <= self.created_at
        return was

    @property
    def usage_key(self) -> str:
        return f"upload:{self.pk}"


class Dataset(models.Model):  # type: ignore[django-manager-missing]
    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="+")
    created_by = models.ForeignKey("accounts.User", null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    name = models.CharField(max_length=150)
    deleted_at = models.DateTimeField(null=True, help_text="Its bytes go, its rows stay.")
    bytes_removed_at = models.DateTimeField(null=True, help_text="When the keeper had removed its files.")

    objects = TenantQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["organization", "-created_at", "-id"], name="dataset_newest"),
            models.Index(
                fields=["deleted_at"],
                condition=Q(deleted_at__isnull=False, bytes_removed_at=None),
                name="dataset_with_bytes_to_remove",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def newest_version(self) -> DatasetVersion | None:
        """Its newest version; costs no query where `newest_version_prefetch` has been applied."""
        newest: list[DatasetVersion] | None = getattr(self, "newest_versions", None)
        if newest is None:
            newest = list(DatasetVersion.objects.filter(dataset_id=self.pk).order_by("-number")[:1])
        return newest[0] if newest else None

    @staticmethod
    def newest_version_prefetch(info: object = None) -> models.Prefetch:
        """Each dataset's newest version as `newest_versions`, in one query for a whole list."""
        newest = DatasetVersion.objects.order_by("dataset_id", "-number").distinct("dataset_id")
        newest = newest.select_related("created_by")  # the optimizer does not look behind a prefetch of ours
        return models.Prefetch("versions", queryset=newest, to_attr="newest_versions")


class DatasetVersionEvent(JobEvent):
    job = models.ForeignKey(
        "datasets.DatasetVersion", on_delete=models.CASCADE, related_name="event_log", db_constraint=False
    )


class DatasetVersion(Job):  # type: ignore[django-manager-missing]
    """One immutable result of running a recipe over an upload: a job until it has succeeded, and a fact from then on.

    One with a parent has that one's rows, too. Those of its files that hold them are the parent's.
    """

    dataset = models.ForeignKey(Dataset, on_delete=models.CASCADE, related_name="versions", db_constraint=False)
    upload = models.ForeignKey(Upload, on_delete=models.PROTECT, related_name="+", db_constraint=False)
    parent = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.CASCADE,
        related_name="+",
        db_constraint=False,
        help_text="The version that its rows were added to.",
    )
    number = models.PositiveIntegerField()
    recipe = models.JSONField()
    asked_recipe = models.JSONField(
        null=True, help_text="The recipe before the upload had a say in it; null: of an earlier release."
    )
    pipeline_version = models.PositiveSmallIntegerField(null=True, help_text="Whose rules made it, once it is made.")
    fingerprint = models.CharField(
        max_length=64, help_text="Hash of the input's sha256, the recipe, and the pipeline's version."
    )
    progress = models.FloatField(null=True)
    rows_in = models.BigIntegerField(null=True)
    rows_kept = models.BigIntegerField(null=True)
    size_bytes = models.BigIntegerField(null=True)
    steps = models.JSONField(default=list)
    splits = models.JSONField(default=list, help_text="[{name, rows, bytes}]")
    pii_findings = models.JSONField(default=list, help_text="[{key, count}]: secrets and personal data, by kind.")
    bias = models.JSONField(null=True, help_text="Of whom its rows speak, and how; null where that was not counted.")
    length_histograms = models.JSONField(
        default=list, help_text="[{field, rows, shortest, longest, mean, bins}]: characters of its rows."
    )
    storage_prefix = models.CharField(max_length=300, blank=True, default="")
    report_key = models.CharField(
        max_length=300, blank=True, default="", help_text="Where its HTML report lies, once there is one."
    )

    queue = "datasets"
    event_model: ClassVar[type[JobEvent]] = DatasetVersionEvent

    class Meta(Job.Meta):
        constraints = [models.UniqueConstraint(fields=["organization", "dataset", "number"], name="version_number")]
        indexes = [
            *(index.clone() for index in Job.Meta.indexes),
            models.Index(
                fields=["organization", "fingerprint"],
                condition=Q(status=JobStatus.SUCCEEDED),
                name="version_fingerprint",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.dataset} v{self.number}"

    @classmethod
    def running_cap(cls) -> int:
        cap: int = settings.CONCURRENT_VERSIONS
        return cap

    @classmethod
    def follows_from(cls, events: list[dict[str, Any]]) -> dict[str, Any]:
        """How far both passes have come."""
        share = overall(events)
        return {} if share is None else {"progress": share}

    def how_far(self) -> str:
        return f"{self.progress:.0%} done" if self.progress is not None else ""

    @property
    def artefacts(self) -> str:
        return blobs.key(self.organization_id, "versions", self.pk)

    @property
    def usage_key(self) -> str:
        return f"version:{self.pk}"

    def ended(self) -> None:
        """Enter what it stores, and tell its creator, unless they ended it, or are likely to be looking at the screen still."""
        if self.status == JobStatus.SUCCEEDED and self.size_bytes is not None:
            settle(self.organization_id, UsageKind.STORAGE_BYTES, self.size_bytes, key=self.usage_key)
        waited = self.finished_at is not None and self.finished_at - self.created_at > LONG_WAIT
        if self.status == JobStatus.FAILED or (self.status == JobStatus.SUCCEEDED and waited):
            tell_creator(self, f"dataset_version_{self.status.lower()}")

    def operated(self, verb: str, actor: str) -> None:
        audit.record(self.organization_id, actor=actor, action=f"version.{verb}", target=f"version:{self.pk}")

    @classmethod
    def next_number(cls, dataset_id: UUID) -> int:
        highest: int | None = cls.objects.filter(dataset_id=dataset_id).aggregate(Max("number"))["number__max"]
        return (highest or 0) + 1


class VersionReportEvent(JobEvent):
    job = models.ForeignKey(
        "datasets.VersionReport", on_delete=models.CASCADE, related_name="event_log", db_constraint=False
    )


class VersionReport(Job):
    """The making of a finished version's HTML report: it can fail, and be done again, and the version is as it was."""

    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="reports", db_constraint=False)

    queue = "datasets"
    event_model: ClassVar[type[JobEvent]] = VersionReportEvent

    class Meta(Job.Meta):
        constraints = [models.UniqueConstraint(fields=["organization", "version"], name="one_report_of_each_version")]
        indexes = [index.clone() for index in Job.Meta.indexes]

    def __str__(self) -> str:
        return f"Report of {self.version}"

    @classmethod
    def running_cap(cls) -> int:
        return 1

    @property
    def artefacts(self) -> str:
        return blobs.key(self.organization_id, "reports", self.pk)

    def operated(self, verb: str, actor: str) -> None:
        audit.record(self.organization_id, actor=actor, action=f"report.{verb}", target=f"report:{self.pk}")


class Hold(models.Model):
    """Somebody uses a version and says so: its dataset is not deleted meanwhile."""

    organization = models.ForeignKey("accounts.Organization", on_delete=models.PROTECT, related_name="+")
    version = models.ForeignKey(DatasetVersion, on_delete=models.CASCADE, related_name="holds", db_constraint=False)
    holder = models.CharField(max_length=100, help_text="Whoever holds it, by kind and id; once for each.")
    label = models.CharField(max_length=200, help_text="What people call it.")

    objects = TenantQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "holder"], name="one_hold_of_each_holder")]

    def __str__(self) -> str:
        return self.label
