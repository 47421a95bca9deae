"""Versions as files for somebody else: what they are called, how they are read, and a link to one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from uuid import UUID

from common import blobs
from datasets.files import files_of
from datasets.models import DatasetVersion
from datasets.pipeline.export import ExportFormat, Part, exported, rows_in
from datasets.signed_links import url_of, values_in

PURPOSE = "downloads"
SPLITS = ("TRAIN", "VALIDATION", "TEST")
MAX_NAME_CHARACTERS = 80


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


def download_url(version: DatasetVersion, split: str | None, export_format: ExportFormat) -> str | None:
    """A link to the file that soon expires; None before the version is made, and once its dataset was deleted."""
    if not version.storage_prefix:
        return None
    values = [str(version.organization_id), str(version.pk), export_format.value, split or ""]
    return url_of(PURPOSE, values)


def named_in(token: str) -> tuple[UUID, UUID, str | None, ExportFormat] | None:
    """(organization, version, split, format) of a link that this installation made, and that has not expired."""
    values = values_in(PURPOSE, token, 4)
    if values is None:
        return None
    organization_id, version_id, export_format, split = values
    return UUID(organization_id), UUID(version_id), split or None, ExportFormat(export_format)
