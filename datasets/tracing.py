"""Where in an organization's versions a literal stands: whose upload it came with, and which versions have the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import QuerySet

from common import blobs
from common.jobs import JobStatus
from common.tenancy import operator
from datasets.files import manifest_of
from datasets.models import DatasetVersion, Upload
from datasets.processing import placeholder_key


@dataclass(frozen=True)
class FoundRow:
    """A row of a version, or one that it left out and shows the beginning of."""

    version_id: UUID
    version: str
    """Its dataset's name, and its number."""
    split: str
    """Or "rejections"."""
    upload: str
    """Its id and name, as far as they are known."""
    line: int
    source: str | None
    masked: bool


@dataclass(frozen=True)
class Traced:
    """What one organization has."""

    organization_id: UUID
    rows: list[FoundRow] = field(default_factory=list)
    versions: list[DatasetVersion] = field(default_factory=list)
    """All that contain one of the rows, the versions that they were added to later among them."""


def organizations_with_versions() -> list[UUID]:
    with operator():
        made = _made().order_by("organization_id").values_list("organization_id", flat=True)
        return list(made.distinct())


def trace(organization_id: UUID, literal: str) -> Traced:
    """Each file is looked into once, whichever versions share it. Storage is read outside of any transaction."""
    from datasets.pipeline.tracing import Wanted, traces

    with operator():
        versions = list(_made().filter(organization_id=organization_id).select_related("dataset", "upload"))
        uploads = {
            upload.sha256: f"{upload.pk} {upload.file_name}"
            for upload in Upload.objects.filter(organization_id=organization_id, sha256__isnull=False)
        }
    wanted = Wanted.of(literal, bytes.fromhex(placeholder_key(organization_id)))
    found = Traced(organization_id)
    for version in versions:
        own = f"{version.upload.pk} {version.upload.file_name}"
        rows: list[FoundRow] = []
        try:
            for split, key in _own_files(version):
                with blobs.open_read(key) as file:
                    for one in traces(file, wanted):  # type: ignore[arg-type]
                        upload = uploads.get(one.upload_sha256, own)
                        rows.append(FoundRow(version.pk, str(version), split, upload, one.line, one.source, one.masked))
        except FileNotFoundError:
            with operator():
                if _made().filter(pk=version.pk).exists():
                    raise  # nobody has deleted it: it is lost
            continue
        found.rows.extend(rows)
    having = {row.version_id for row in found.rows if row.split != "rejections"}  # what was left out is in none
    for version in sorted(versions, key=lambda each: each.number):  # a parent has the lower number
        if version.parent_id in having:
            having.add(version.pk)
    found.versions.extend(version for version in versions if version.pk in having)
    return found


def _made() -> QuerySet[DatasetVersion]:
    made = DatasetVersion.objects.filter(status=JobStatus.SUCCEEDED, dataset__deleted_at=None)
    return made.exclude(storage_prefix="").order_by("dataset_id", "number")


def _own_files(version: DatasetVersion) -> Iterator[tuple[str, str]]:
    for entry in manifest_of(version)["files"]:
        if "key" not in entry:
            yield entry["split"], f"{version.storage_prefix}/{entry['name']}"
