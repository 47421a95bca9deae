"""A finished version's HTML report: a job of its own, whose child alone imports Evidently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common import blobs
from common.jobs import Lease
from common.queues import ring
from common.supervision import Refused, Work
from common.tenancy import operator
from datasets.files import files_of
from datasets.models import DatasetVersion, VersionReport

REPORT = "report.html"
SPLITS = ("train", "validation", "test")


def ask_for_report(version: DatasetVersion) -> None:
    """Queue the report of a version that succeeds in this transaction."""
    report = VersionReport.objects.create(
        organization_id=version.organization_id, created_by_id=version.created_by_id, version=version
    )
    report.created()
    ring(VersionReport.queue)


def prepare(report: VersionReport, lease: Lease, folder: Path) -> Work:
    version = report.version
    if not version.storage_prefix:
        raise Refused("DATASET_DELETED", "The dataset was deleted before there was a report.")
    (folder / "version").mkdir(exist_ok=True)
    for split in SPLITS:
        for number, part in enumerate(files_of(version, split.upper())):
            blobs.get_linked(part.key, folder / "version" / f"{split}-{number:05d}.parquet")
    prefix = f"{report.artefacts}/{lease.fence:04d}"
    with operator():
        waiting = set(DatasetVersion.objects.due().values_list("pk", flat=True))

    def is_version_due() -> bool:
        """One that has come since: what waited before could not be begun, either."""
        with operator():
            return not waiting.issuperset(DatasetVersion.objects.due().values_list("pk", flat=True))

    def store(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
        blobs.put_folder(prefix, folder / "report", last=REPORT)
        return result

    def succeeded(report: VersionReport, result: dict[str, Any]) -> None:
        still_there = DatasetVersion.objects.filter(pk=report.version_id).exclude(storage_prefix="")
        still_there.update(report_key=f"{prefix}/{REPORT}")

    return Work(
        module="datasets.report",
        orders={
            "title": f"{version.dataset.name}, version {version.number}",
            "seed": int(version.fingerprint[:8], 16),
            "bias": version.bias,
        },
        store=store,
        succeeded=succeeded,
        environment={"DO_NOT_TRACK": "1"},
        gives_way=is_version_due,
    )
