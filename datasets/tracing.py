"""Where in an organization's versions a literal stands: whose upload it came with, and which versions have the rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db.models import QuerySet

from common import blobs
from common.jobs import JobStatus
from common.tenancy import operator
from datasets.files import manifest_of
from datasets.models import DatasetVersion, Upload
from datasets.processing import placeholder_key
from datasets.rows import samples

if TYPE_CHECKING:
    from datasets.pipeline.stored.tracing import Wanted

BESIDE = ("rejections", "examples")
"""Where something stands that may be in no row of the version."""


@dataclass(frozen=True)
class FoundRow:
    """A row of a version, or one that it left out and shows the beginning of."""

    version_id: UUID
    version: str
    """Its dataset's name, and its number."""
    split: str
    """Or "rejections", or "examples": what is shown beside a version, of a row in which it is not found itself."""
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
    from datasets.pipeline.stored.tracing import Wanted

    with operator():
        versions = list(_made().filter(organization_id=organization_id).select_related("dataset", "upload"))
        uploads = {
            upload.sha256: f"{upload.pk} {upload.file_name}"
            for upload in Upload.objects.filter(organization_id=organization_id, sha256__isnull=False)
        }
    wanted = Wanted.of(literal, bytes.fromhex(placeholder_key(organization_id)))
    found = Traced(organization_id)
    manifests: dict[UUID | None, dict[str, Any]] = {None: {"steps": []}}
    for version in versions:
        try:
            manifests[version.pk] = manifest_of(version)
            found.rows.extend(_found_in(version, manifests, wanted, uploads))
        except FileNotFoundError:
            with operator():
                if _made().filter(pk=version.pk).exists():
                    raise  # nobody has deleted it: it is lost
    having = {row.version_id for row in found.rows if row.split not in BESIDE}  # what was left out is in none
    for version in sorted(versions, key=lambda each: each.number):  # a parent has the lower number
        if version.parent_id in having:
            having.add(version.pk)
    found.versions.extend(version for version in versions if version.pk in having)
    return found


def _found_in(
    version: DatasetVersion,
    manifests: dict[UUID | None, dict[str, Any]],
    wanted: Wanted,
    uploads: dict[str | None, str],
) -> list[FoundRow]:
    """In its own files, and of what it shows beside them what is not found there."""
    from datasets.pipeline.stored.tracing import traces, traces_in_examples

    own = f"{version.upload.pk} {version.upload.file_name}"
    manifest, before = (manifests.get(each, manifests[None]) for each in (version.pk, version.parent_id))
    rows: list[FoundRow] = []
    for split, key in _own_files(version, manifest):
        with blobs.open_read(key) as file:
            for one in traces(file, wanted):  # type: ignore[arg-type]
                upload = uploads.get(one.upload_sha256, own)
                rows.append(FoundRow(version.pk, str(version), split, upload, one.line, one.source, one.masked))
    known = {(row.line, row.source, row.masked) for row in rows}
    shown = traces_in_examples(samples(version), manifest["steps"], wanted, before["steps"])
    return rows + [
        FoundRow(version.pk, str(version), "examples", own, one.line, one.source, one.masked)
        for one in shown
        if (one.line, one.source, one.masked) not in known
    ]


def _made() -> QuerySet[DatasetVersion]:
    made = DatasetVersion.objects.filter(status=JobStatus.SUCCEEDED, dataset__deleted_at=None)
    return made.exclude(storage_prefix="").order_by("dataset_id", "number")


def _own_files(version: DatasetVersion, manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for entry in manifest["files"]:
        if "key" not in entry:
            yield entry["split"], f"{version.storage_prefix}/{entry['name']}"
