"""One dataset version's way through the pipeline: what its child is told, and what its success means."""

from __future__ import annotations

import hmac
import json
from pathlib import Path
from typing import Any

from django.conf import settings

from common import blobs
from common.jobs import Lease
from common.supervision import Work
from datasets.models import DatasetVersion

MANIFEST = "manifest.json"


def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
    source = folder / "source"
    blobs.get(version.upload.storage_key, source)
    prefix = f"{version.artefacts}/{lease.fence:04d}"

    def store(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
        size = blobs.put_folder(prefix, folder / "version", last=MANIFEST)
        manifest = json.loads((folder / "version" / MANIFEST).read_text())
        return {**result, "size_bytes": size, "manifest": manifest}

    def succeeded(version: DatasetVersion, result: dict[str, Any]) -> None:
        DatasetVersion.objects.filter(pk=version.pk).update(
            storage_prefix=prefix,
            recipe=result["manifest"]["recipe"],
            rows_in=result["rows_in"],
            rows_kept=result["rows_kept"],
            size_bytes=result["size_bytes"],
            steps=result["steps"],
            pii_findings=result["pii_findings"],
            length_histograms=result["length_histograms"],
            splits=_splits(result["manifest"]),
            progress=1.0,
        )

    return Work(
        module="datasets.pipeline",
        orders={
            "source": str(source),
            "file_name": version.upload.file_name,
            "recipe": version.recipe,
            "pii_key": _placeholder_key(version),
        },
        store=store,
        succeeded=succeeded,
    )


def _placeholder_key(version: DatasetVersion) -> str:
    """In hex: an organization's placeholders are the same in all of its versions, and say nothing to another one."""
    name = f"placeholders/{version.organization_id}".encode()
    return hmac.digest(settings.SECRET_KEY.encode(), name, "sha256").hex()


def _splits(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": file["split"], "rows": file["rows"], "bytes": file["size_bytes"]}
        for file in manifest["files"]
        if file["split"] in {"TRAIN", "VALIDATION", "TEST"}
    ]
