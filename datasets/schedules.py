"""What the keeper does from time to time for uploads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path

from django.conf import settings
from django.core.files.storage import default_storage
from django.utils import timezone

from common import blobs
from common.leftovers import age_s, is_id
from common.tenancy import operator
from common.timetable import every
from datasets.deletion import remove_bytes_of_deleted_datasets, remove_unused_uploads
from datasets.models import Upload, UploadStatus
from datasets.receive import partial

ABANDONED = timedelta(hours=1)
KEYS_AT_ONCE = 1000


@every(timedelta(hours=1), slow=True)
def remove_files_that_no_upload_names() -> None:
    """A transfer that dies once its bytes are in storage, and before its upload says so, leaves them there."""
    for organization in blobs.folders("t"):
        keys = _upload_keys(organization)
        while some := list(islice(keys, KEYS_AT_ONCE)):
            for key in _nameless(some):
                if _is_abandoned(key):
                    blobs.delete(key)


@every(timedelta(seconds=15), on_each_host=True, slow=True)
def remove_bytes_that_no_upload_waits_for() -> None:
    """What nobody has gone on sending, or came for an upload that has expired, or been deleted with its organization.

    Pieces wait as long as their ticket is good; a transfer that is under way finds out by itself.
    """
    arrived = {file: file.name.partition(".")[0] for file in Path(settings.INCOMING_ROOT).glob("*")}
    ids = [upload for upload in arrived.values() if is_id(upload)]
    with operator():
        known = {str(upload.pk): upload.status for upload in Upload.objects.filter(pk__in=ids)}
    for file, upload in arrived.items():
        if file.suffix == partial.SUFFIX:
            if known.get(upload) not in (UploadStatus.WAITING, UploadStatus.RECEIVING):
                partial.remove_unless_held(file)
        elif (is_id(upload) and upload not in known) or age_s(file) > ABANDONED.total_seconds():
            file.unlink(missing_ok=True)


@every(timedelta(seconds=15), slow=True)
def remove_what_was_deleted() -> None:
    remove_bytes_of_deleted_datasets()


@every(timedelta(hours=1), slow=True)
def remove_what_nobody_uses() -> None:
    remove_unused_uploads()


def _upload_keys(organization: str) -> Iterator[str]:
    uploads = f"t/{organization}/uploads"
    for upload in blobs.folders(uploads):
        with suppress(FileNotFoundError):  # it has gone meanwhile
            for name in default_storage.listdir(f"{uploads}/{upload}")[1]:
                yield f"{uploads}/{upload}/{name}"


def _nameless(keys: list[str]) -> set[str]:
    with operator():
        return set(keys).difference(Upload.objects.filter(storage_key__in=keys).values_list("storage_key", flat=True))


def _is_abandoned(key: str) -> bool:
    try:
        return timezone.now() - default_storage.get_modified_time(key) > ABANDONED
    except FileNotFoundError:  # its transfer has just removed it
        return False
