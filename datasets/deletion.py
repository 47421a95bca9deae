"""The bytes of deleted datasets go, and of uploads that nobody makes a dataset from; their rows stay.

Each step may be done again: what one turn of the keeper leaves undone the next one does.
"""

from __future__ import annotations

import logging
from uuid import UUID

from django.conf import settings
from django.db.models import Exists, OuterRef
from django.utils import timezone

from accounts.usage import release
from accounts.usage_kinds import UsageKind
from common import blobs
from common.clock import ServerClock
from common.jobs import request_cancel
from common.outages import AWAY
from common.tenancy import operator
from datasets.models import Dataset, DatasetVersion, Upload, VersionReport

logger = logging.getLogger(__name__)

AT_ONCE = 20


def remove_bytes_of_deleted_datasets() -> None:
    """Each dataset by itself: one whose files cannot be removed now holds up no other. Raises one of AWAY."""
    with operator():  # any of them: those that fail are no more often among them than others
        deleted = list(Dataset.objects.filter(deleted_at__isnull=False, bytes_removed_at=None).order_by("?")[:AT_ONCE])
    for dataset in deleted:
        try:
            _remove_bytes(dataset)
        except AWAY:
            raise
        except Exception:
            logger.exception("The files of dataset %s could not be removed; it is gone on with.", dataset.pk)


def remove_unused_uploads() -> None:
    """What arrived a week ago, and no dataset was made from; the same bytes a second time are of no use either."""
    needed = DatasetVersion.objects.filter(upload=OuterRef("pk"), dataset__deleted_at=None)
    arrived = Upload.objects.filter(completed_at__lt=timezone.now() - settings.UNUSED_UPLOAD_LIFETIME)
    with operator():
        unused = list(arrived.exclude(storage_key="").exclude(Exists(needed)).values_list("pk", flat=True))
    for upload_id in unused:
        try:
            _remove_upload(upload_id)
        except Upload.DoesNotExist:
            pass  # it went with its organization


def _remove_bytes(dataset: Dataset) -> None:
    """Its versions' files and reports, and those of uploads that no other dataset was made from."""
    with operator():
        versions = list(DatasetVersion.objects.filter(dataset=dataset))
        reports = list(VersionReport.objects.filter(version__dataset=dataset))
        asked = [request_cancel(report) for report in reports]
        if not all(report.has_ended for report in asked):
            return  # one is just being made: the next turn finds it stopped
    for report in reports:
        blobs.delete_tree(report.artefacts)
    for version in versions:
        blobs.delete_tree(version.artefacts)
        with operator():
            release(version.organization_id, UsageKind.STORAGE_BYTES, key=version.usage_key)
    for upload_id in {version.upload_id for version in versions}:
        _remove_upload(upload_id)
    with operator():
        Dataset.objects.filter(pk=dataset.pk).update(bytes_removed_at=ServerClock())


def _remove_upload(upload_id: UUID) -> None:
    with operator():
        # whoever makes a version of it holds its row, and has committed once we have it
        upload = Upload.objects.select_for_update().get(pk=upload_id)
        key = "" if is_needed(upload) else forget(upload)
    if key:
        blobs.delete(key)  # if that fails, no upload names the file any more, and so it is found


def is_needed(upload: Upload) -> bool:
    """Whether a dataset was made from it that has not been deleted. Ask with its row held."""
    return DatasetVersion.objects.filter(upload=upload, dataset__deleted_at=None).exists()


def forget(upload: Upload) -> str:
    """The key that it had until now, empty if none; it is stored no more."""
    Upload.objects.filter(pk=upload.pk).update(storage_key="")
    release(upload.organization_id, UsageKind.STORAGE_BYTES, key=upload.usage_key)
    return upload.storage_key
