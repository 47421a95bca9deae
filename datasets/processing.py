"""One dataset version's way through the pipeline: what its child is told, and what its success means."""

from __future__ import annotations

import hmac
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from common import blobs
from common.jobs import Lease
from common.supervision import Refused, Work
from common.tenancy import organizations_scope
from datasets.appending import lineage
from datasets.files import MANIFEST, key_of, manifest_of
from datasets.follow_ups import follow_ups
from datasets.models import DatasetVersion
from datasets.reporting import ask_for_report


def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
    source = folder / "source"
    blobs.get(version.upload.storage_key, source)
    prefix = f"{version.artefacts}/{lease.fence:04d}"
    parent = _fetch_parent(version, folder / "parent") if version.parent_id else None

    def store(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
        size = blobs.put_folder(prefix, folder / "version", last=MANIFEST)
        manifest = json.loads((folder / "version" / MANIFEST).read_text())
        return {**result, "size_bytes": size, "manifest": manifest}

    def succeeded(version: DatasetVersion, result: dict[str, Any]) -> None:
        DatasetVersion.objects.filter(pk=version.pk).update(
            storage_prefix=prefix,
            recipe=result["manifest"]["recipe"],
            pipeline_version=result["manifest"]["pipeline_version"],
            rows_in=result["rows_in"],
            rows_kept=result["rows_kept"],
            size_bytes=result["size_bytes"],
            steps=result["steps"],
            pii_findings=result["pii_findings"],
            bias=result["bias"],
            length_histograms=result["length_histograms"],
            splits=_splits(result["manifest"]),
            progress=1.0,
        )
        for each in follow_ups():
            each.ask(version)
        if settings.REPORTS:
            ask_for_report(version)

    return Work(
        module="datasets.pipeline",
        orders={
            "source": str(source),
            "file_name": version.upload.file_name,
            "recipe": version.recipe,
            "names_model": settings.PII_NAMES_MODEL,
            "pii_key": placeholder_key(version.organization_id),
            "parent": parent,
        },
        store=store,
        succeeded=succeeded,
        environment={"NUMBA_CACHE_DIR": str(settings.COMPILED_ROOT)},
    )


def _fetch_parent(made: DatasetVersion, folder: Path) -> list[dict[str, Any]]:
    """Have the files that an append needs of the parent, and of those before it, here; what the child is told of them."""
    assert made.parent_id
    with organizations_scope([made.organization_id]):
        versions = lineage(made.dataset_id, made.parent_id)
    found = []
    for version in versions:
        place = folder / str(version.number)
        place.mkdir(parents=True, exist_ok=True)  # the database may have been away in between
        manifest = manifest_of(version)
        (place / MANIFEST).write_text(json.dumps(manifest))
        for entry in (*manifest["files"], *manifest["index"]):
            if "key" not in entry and entry.get("split") != "rejections":
                _fetch(version, entry, place / entry["name"])
        found.append({"number": version.number, "prefix": version.storage_prefix, "folder": str(place)})
    return found


def _fetch(version: DatasetVersion, entry: dict[str, Any], path: Path) -> None:
    """Raises Refused where the file is not as long as it was: what it takes to read all of it would be no append's cost."""
    with suppress(FileNotFoundError):
        blobs.get_linked(key_of(version, entry), path)
    if not path.exists() or path.stat().st_size != entry["size_bytes"]:
        raise Refused(
            "DATA_CORRUPT",
            f"{entry['name']} of version {version.number} is not what was stored; process its upload into a new dataset.",
        )


def placeholder_key(organization_id: UUID) -> str:
    """In hex: an organization's placeholders are the same in all of its versions, and say nothing to another one."""
    name = f"placeholders/{organization_id}".encode()
    return hmac.digest(settings.SECRET_KEY.encode(), name, "sha256").hex()


def _splits(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    splits = {name: {"name": name, "rows": 0, "bytes": 0} for name in ("TRAIN", "VALIDATION", "TEST")}
    for file in manifest["files"]:
        if file["split"] in splits:
            splits[file["split"]]["rows"] += file["rows"]
            splits[file["split"]]["bytes"] += file["size_bytes"]
    return list(splits.values())
