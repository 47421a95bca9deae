"""Versions as files for somebody else: what they are called, how they are read, and a link to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

from accounts import audit
from accounts.models import AuditEntry
from common import blobs
from common.origin import address
from datasets.files import files_of
from datasets.models import DatasetVersion
from datasets.pipeline.stored.export import ExportFormat, Part, exported, rows_in
from datasets.signed_links import LIFETIME, url_of, values_in

PURPOSE = "downloads"
SPLITS = ("TRAIN", "VALIDATION", "TEST")
MAX_NAME_CHARACTERS = 80
NOTES_LOOKED_AT = 100  # the newest entries of an audit log: they are together in its index


def parts_of(version: DatasetVersion) -> list[Part]:
    return [Part(split, partial(blobs.open_read, file.key)) for split in SPLITS for file in files_of(version, split)]


def export(
    version: DatasetVersion,
    split: str | None,
    export_format: ExportFormat,
    each_batch: Callable[[int], None] = lambda rows: None,
) -> Iterator[bytes]:
    """The file in pieces. To be called for a version that has its files: `storage_prefix` says so."""
    # a generator: storage is asked by whoever takes the first piece, and not on an event loop
    yield from exported(parts_of(version), split, export_format, each_batch)


def count_rows(version: DatasetVersion, split: str | None) -> int:
    return rows_in(parts_of(version), split)


def file_name(version: DatasetVersion, split: str | None, export_format: ExportFormat) -> str:
    """<dataset>-v<number>-<split>.<format>, of letters, digits, and dashes alone: any file system takes it."""
    part = f"-{split.lower()}" if split else ""
    return f"{_stem(version)}{part}.{export_format.lower()}"


def card_name(version: DatasetVersion) -> str:
    return f"{_stem(version)}.md"


def _stem(version: DatasetVersion) -> str:
    kept = "".join(character if character.isalnum() else "-" for character in version.dataset.name)
    name = "-".join(part for part in kept.split("-") if part)[:MAX_NAME_CHARACTERS] or "dataset"
    return f"{name}-v{version.number}"


def download_url(
    version: DatasetVersion, split: str | None, export_format: ExportFormat, *, asked_by: str
) -> str | None:
    """A link to the file that soon expires; None before the version is made, and once its dataset was deleted.

    `asked_by` is whom it is made for, as the audit log names them: it needs no token, so nothing else tells who follows it.
    """
    if not version.storage_prefix:
        return None
    values = [str(version.organization_id), str(version.pk), export_format.value, split or "", asked_by]
    return url_of(PURPOSE, values)


def named_in(token: str) -> tuple[UUID, UUID, str | None, ExportFormat, str] | None:
    """(organization, version, split, format, asked by) of a link that this installation made, and that has not expired."""
    values = values_in(PURPOSE, token, 5)
    if values is None:
        return None
    organization_id, version_id, export_format, split, asked_by = values
    return UUID(organization_id), UUID(version_id), split or None, ExportFormat(export_format), asked_by


def note(version: DatasetVersion, split: str | None, export_format: ExportFormat, *, taken_by: str) -> None:
    """An entry in the organization's audit log: its rows leave the platform. In a scope that has it.

    Who takes the same file again from the same address while a link lasts, as one does that goes on with a download, is
    noted once, and whoever has a link does not fill the log with it.
    """
    entry = {"actor": taken_by, "action": "version.download", "target": f"version:{version.pk}"}
    details = {"format": export_format.value, "split": split or "ALL"}
    since = audit.hold(version.organization_id).now - LIFETIME  # of two at once, one sees the other's
    lately = AuditEntry.objects.filter(organization_id=version.organization_id).order_by("-sequence")[:NOTES_LOOKED_AT]
    if not any(
        before.at > since
        and before.address == address()
        and before.details == details
        and all(getattr(before, name) == value for name, value in entry.items())
        for before in lately
    ):
        audit.record(version.organization_id, **entry, **details)
