"""What people ask of uploads and datasets, one function per verb."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q

from accounts import audit
from accounts.permissions import Permission, authorize
from accounts.usage import release, require_left, reserve
from accounts.usage_kinds import UsageKind
from common import blobs
from common.clock import ServerClock
from common.errors import DomainError, Invalid, NotFound
from common.jobs import JobStatus, request_cancel
from common.queues import ring
from common.tenancy import Principal
from common.text import plain_text, shortened
from datasets.appending import latest, lineage, require_finished, same_recipe
from datasets.deletion import forget, is_needed
from datasets.holds import DatasetDeleted
from datasets.models import Dataset, DatasetVersion, Hold, Upload, UploadStatus
from datasets.naming import require_model
from datasets.pipeline.fingerprint import fingerprint
from datasets.pipeline.recipe import Recipe

NAMED_USERS = 5


class DatasetInUse(DomainError):
    """Something needs its bytes; the message says what, and what to do."""

    code = "DATASET_IN_USE"

    def __init__(self, users: list[str]) -> None:
        more = f", and {len(users) - NAMED_USERS:,} more" if len(users) > NAMED_USERS else ""
        super().__init__(
            f"In use by {'; '.join(users[:NAMED_USERS])}{more}. Wait until they have ended, or cancel them."
        )


class SeveralUploads(Invalid):
    """The last upload alone would lose the rows of those before it, and nobody has said that this is wanted."""

    def __init__(self, newest: DatasetVersion) -> None:
        names = [each.upload.file_name for each in lineage(newest.dataset_id, newest.pk)]
        named = ", ".join(f"'{shortened(name, 60)}'" for name in names[:NAMED_USERS])
        more = f", and {len(names) - NAMED_USERS:,} more" if len(names) > NAMED_USERS else ""
        super().__init__(
            f"Version {newest.number} has the rows of several uploads: {named}{more}. Say which one makes the new version alone; "
            "the others can be added to that with append.",
            code="UPLOAD_REQUIRED",
            field="uploadId",
        )


class UploadInUse(DomainError):
    """A dataset was made from it, which has its bytes processed anew whenever somebody asks for that."""

    code = "UPLOAD_IN_USE"

    def __init__(self) -> None:
        super().__init__("A dataset was made from this upload. Its bytes go with the dataset: use deleteDataset.")


@transaction.atomic
def start_upload(
    *, actor: Principal, organization_id: UUID, file_name: str, size_bytes: int, sha256: str | None
) -> Upload:
    """Reserve a place for a file, as long as it can still arrive. Raises NotAllowed, QuotaExceeded, and Invalid."""
    authorize(actor, Permission.UPLOAD, organization_id)
    if not 0 <= size_bytes <= settings.MAX_UPLOAD_BYTES:
        raise Invalid(
            f"sizeBytes should be from 0 to {settings.MAX_UPLOAD_BYTES:,}.", code="INVALID_SIZE", field="sizeBytes"
        )
    if sha256 and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise Invalid("sha256 should be 64 hexadecimal digits.", field="sha256")
    upload = Upload.objects.create(
        organization_id=organization_id,
        created_by_id=actor.user_id,
        file_name=plain_text(file_name, "fileName", 300),
        size_bytes=size_bytes,
        expected_sha256=(sha256 or "").lower(),
    )
    reserve(organization_id, UsageKind.STORAGE_BYTES, size_bytes, key=upload.usage_key, lapses_at=upload.expires_at)
    return upload


@transaction.atomic
def delete_upload(*, actor: Principal, upload: Upload) -> None:
    """Give up one that has not arrived, and delete the bytes of one that has. What is deleted stays so.

    Raises NotAllowed, and UploadInUse where a dataset was made from it.
    """
    authorize(actor, Permission.DELETE_UPLOAD, upload.organization_id)
    upload = Upload.objects.select_for_update().get(pk=upload.pk)  # its last byte comes before or after, a version, too
    if upload.status is not UploadStatus.COMPLETE:
        Upload.objects.filter(pk=upload.pk).give_up()
        release(upload.organization_id, UsageKind.STORAGE_BYTES, key=upload.usage_key)
        return
    if is_needed(upload):
        raise UploadInUse
    if key := forget(upload):
        # if that fails, no upload names the file any more, and so it is found
        transaction.on_commit(lambda: blobs.delete(key), robust=True)
        audit.record(upload.organization_id, actor=actor.name, action="upload.delete", target=f"upload:{upload.pk}")


@transaction.atomic
def create_dataset(
    *, actor: Principal, organization_id: UUID, name: str, upload: Upload, recipe: Recipe
) -> DatasetVersion:
    """Make a dataset and queue its first version; the same bytes and recipe again return the finished version.

    Raises NotAllowed, NotFound for an upload of another organization, Invalid for one that is not complete, and
    QuotaExceeded where no storage is left.
    """
    authorize(actor, Permission.PROCESS_DATASET, organization_id)
    if upload.organization_id != organization_id:
        raise NotFound
    hashed = _fingerprint(upload, recipe)
    if finished := _finished(organization_id, hashed):
        return finished
    dataset = Dataset.objects.create(
        organization_id=organization_id, created_by_id=actor.user_id, name=plain_text(name, "name", 150)
    )
    return _queue_version(actor, dataset, upload, recipe, hashed)


@transaction.atomic
def process_dataset(*, actor: Principal, dataset: Dataset, upload: Upload | None, recipe: Recipe) -> DatasetVersion:
    """Queue a further version of a dataset, from `upload` or the last one; the same again returns the finished version.

    Raises what create_dataset does.
    """
    dataset = _to_process(actor, dataset)
    if upload is None:
        newest = DatasetVersion.objects.filter(dataset=dataset).order_by("-number").select_related("upload")[0]
        if newest.parent_id is not None:
            raise SeveralUploads(newest)
        upload = newest.upload
    if upload.organization_id != dataset.organization_id:
        raise NotFound
    hashed = _fingerprint(upload, recipe)
    return _finished(dataset.organization_id, hashed) or _queue_version(actor, dataset, upload, recipe, hashed)


@transaction.atomic
def append_to_dataset(
    *, actor: Principal, dataset: Dataset, upload: Upload | None, recipe: Recipe | None
) -> DatasetVersion:
    """Queue a version that has the latest one's rows and those of `upload`; without a recipe, with the latest one's.

    Bytes that the latest version was made from are not added again: it is returned. Raises what create_dataset does, and
    CannotAppend.
    """
    dataset = _to_process(actor, dataset)
    if upload is None:
        raise Invalid("Say which upload's rows are to be added.", code="UPLOAD_REQUIRED", field="uploadId")
    if upload.organization_id != dataset.organization_id:
        raise NotFound
    parent = latest(dataset)
    recipe = same_recipe(parent, recipe)
    _fingerprint(upload, recipe)  # it is complete
    is_there_to_stay = parent.status == JobStatus.SUCCEEDED or parent.cancel_requested_at is None
    if is_there_to_stay and upload.sha256 in {each.upload.sha256 for each in lineage(dataset.pk, parent.pk)}:
        return parent
    require_finished(parent)
    hashed = _fingerprint(upload, recipe, parent)
    finished = _finished(dataset.organization_id, hashed)
    return finished or _queue_version(actor, dataset, upload, recipe, hashed, parent)


def _to_process(actor: Principal, dataset: Dataset) -> Dataset:
    authorize(actor, Permission.PROCESS_DATASET, dataset.organization_id)
    locked: Dataset = Dataset.objects.select_for_update().get(pk=dataset.pk)  # two requests must not take one number
    if locked.deleted_at is not None:
        raise DatasetDeleted("datasetId")
    return locked


@transaction.atomic
def delete_dataset(*, actor: Principal, dataset: Dataset) -> None:
    """Delete a dataset's bytes; its rows stay, for the runs that name them. What is deleted stays so.

    Raises NotAllowed, and DatasetInUse while a version of it is being made, or a run holds one.
    """
    authorize(actor, Permission.DELETE_DATASET, dataset.organization_id)
    dataset = Dataset.objects.select_for_update().get(pk=dataset.pk)  # whoever holds a version comes before or after
    if dataset.deleted_at is not None:
        return
    if users := _users(dataset):
        raise DatasetInUse(users)
    DatasetVersion.objects.filter(dataset=dataset).update(storage_prefix="", report_key="")
    Dataset.objects.filter(pk=dataset.pk).update(deleted_at=ServerClock())
    target = f"dataset:{dataset.pk}"
    audit.record(dataset.organization_id, actor=actor.name, action="dataset.delete", target=target)


def _users(dataset: Dataset) -> list[str]:
    """What people call whatever uses it now."""
    making = DatasetVersion.objects.filter(dataset=dataset, status__in=[JobStatus.QUEUED, JobStatus.RUNNING])
    holds = Hold.objects.filter(version__dataset=dataset).order_by("pk")
    return [
        *(
            f"version {number}, which is being made"
            for number in making.order_by("number").values_list("number", flat=True)
        ),
        *holds.values_list("label", flat=True),
    ]


@transaction.atomic
def cancel_version(*, actor: Principal, version: DatasetVersion) -> DatasetVersion:
    """Stop making a version; one that has ended stays as it ended. Raises NotAllowed."""
    authorize(actor, Permission.PROCESS_DATASET, version.organization_id)
    cancelled: Any = request_cancel(version)
    return cancelled


def _queue_version(
    actor: Principal,
    dataset: Dataset,
    upload: Upload,
    recipe: Recipe,
    hashed: str,
    parent: DatasetVersion | None = None,
) -> DatasetVersion:
    require_left(dataset.organization_id, UsageKind.STORAGE_BYTES)
    require_model(recipe)
    if not Upload.objects.select_for_update().get(pk=upload.pk).storage_key:  # whoever removes its bytes waits
        message = "The bytes of this upload were deleted; send the file again."
        raise Invalid(message, code="UPLOAD_DELETED", field="uploadId")
    version = DatasetVersion.objects.create(
        organization_id=dataset.organization_id,
        created_by_id=actor.user_id,
        dataset=dataset,
        upload=upload,
        number=DatasetVersion.next_number(dataset.pk),
        parent=parent,
        recipe=recipe.to_json(),
        asked_recipe=recipe.to_json(),
        fingerprint=hashed,
    )
    version.created()
    ring(DatasetVersion.queue)
    return version


def _fingerprint(upload: Upload, recipe: Recipe, parent: DatasetVersion | None = None) -> str:
    if upload.status is not UploadStatus.COMPLETE or upload.sha256 is None:
        raise Invalid(
            f"The upload is {upload.status}: send its {upload.size_bytes:,} bytes to the ticket's url first.",
            code="UPLOAD_INCOMPLETE",
            field="uploadId",
        )
    return fingerprint(upload.sha256, recipe, parent.fingerprint if parent else None)


def _finished(organization_id: UUID, hashed: str) -> DatasetVersion | None:
    """The version that this input and recipe have made before. The lock lets two equal requests make one between them."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s), hashtext(%s))", [hashed, str(organization_id)])
    same = DatasetVersion.objects.filter(organization_id=organization_id, fingerprint=hashed, dataset__deleted_at=None)
    on_its_way = Q(status__in=[JobStatus.QUEUED, JobStatus.RUNNING], cancel_requested_at=None)
    found: DatasetVersion | None = same.filter(on_its_way | Q(status=JobStatus.SUCCEEDED)).first()
    return found
