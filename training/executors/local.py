"""A run on this machine: what the trainer's process is told, and what its success means."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from django.conf import settings

from common import blobs
from common.jobs import Lease
from common.supervision import Refused, Work
from common.tenancy import organizations_scope
from datasets.files import key_of, manifest_of
from datasets.models import DatasetVersion
from training import catalogue, checkpoints
from training.budget import MinutesLeft
from training.models import Adapter, TrainingRun
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapter_digest, sha256_of

logger = logging.getLogger(__name__)

TRAINER = "training.trainer"  # the module that an attempt runs as a process of its own


def prepare(run: TrainingRun, lease: Lease, folder: Path) -> Work:
    base = catalogue.named(run.base_model_name)
    prefix = f"{run.artefacts}/{lease.fence:04d}"

    def store(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
        adapter = folder / "adapter"
        if adapter_digest(adapter) != result["adapter"]["digest"]:
            raise OSError(f"The adapter in {adapter} is not the one that the trainer wrote.")
        blobs.put_folder(prefix, adapter, last=ADAPTER_WEIGHTS)
        return {**result, "card": (adapter / "README.md").read_text()}

    def succeeded(run: TrainingRun, result: dict[str, Any]) -> None:
        card, adapter = result.pop("card"), result.pop("adapter")
        TrainingRun.objects.filter(pk=run.pk).update(result=result, eval_loss=result["eval_loss"])
        Adapter.objects.create(
            organization_id=run.organization_id,
            training_run=run,
            name=run.name,
            version=Adapter.next_version(run.organization_id, run.name),
            base_model_name=run.base_model_name,
            base_model_revision=run.base_model_revision,
            digest=adapter["digest"],
            size_bytes=adapter["size_bytes"],
            storage_prefix=prefix,
            eval_loss=result["eval_loss"],
            test_loss=result["test_loss"],
            base_test_loss=result["base_test_loss"],
            production_digest=result.get("production_digest") or "",
            production_test_loss=result.get("production_test_loss"),
            card=card,
        )

    return Work(
        module=TRAINER,
        orders={
            "base_model": {
                "name": base.name,
                "revision": base.revision,
                "path": str(base.folder),
                "is_here": base.available,
            },
            "data": _fetch_splits(run.dataset_version, folder / "data"),
            "config": run.config,
            "resume_from": _begin_with(run, folder),
            "device": settings.DEVICE,
            "threads": settings.TRAINER_THREADS or None,
            "processes": settings.TRAINER_PROCESSES,
            "adapter_name": run.name,
            "lineage": _lineage(run),
            "production": _fetch_production(run, folder / "production"),
        },
        store=store,
        succeeded=succeeded,
        keep=lambda folder: checkpoints.keep(run, lease, folder),
        forbidden=MinutesLeft(run.organization_id),
    )


def _fetch_splits(version: DatasetVersion, folder: Path) -> dict[str, list[str]]:
    """Copy the version's shards here, each checked against the manifest."""
    folder.mkdir(exist_ok=True)
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for number, entry in enumerate(manifest_of(version)["files"]):
        split = str(entry["split"]).lower()
        if split in splits:
            path = folder / f"{number:05}-{entry['name']}"
            blobs.get(key_of(version, entry), path)
            if sha256_of(path) != entry["sha256"]:
                raise Refused(
                    "DATA_CORRUPT",
                    f"{entry['name']} of the dataset version is not what was stored; make the version again.",
                )
            splits[split].append(str(path))
    return splits


def _begin_with(run: TrainingRun, folder: Path) -> str | None:
    """The newest checkpoint of an earlier attempt, or else the one of the run that this one goes on from."""
    newest = checkpoints.newest_of(folder)
    if newest is None and run.resumed_from_id is not None:
        with organizations_scope([run.organization_id]):
            before = TrainingRun.objects.get(pk=run.resumed_from_id)
        newest = checkpoints.fetch(before, folder / "resumed")
    return str(newest.folder) if newest else None


def _fetch_production(run: TrainingRun, folder: Path) -> dict[str, str] | None:
    """Copy the files of the adapter that is in production under the run's name, for the trainer to measure beside its own.

    None where there is none; nor is one of another base model measured, whose losses are of other tokens.
    """
    with organizations_scope([run.organization_id]):
        base_model = (run.base_model_name, run.base_model_revision)
        present: Adapter | None = Adapter.objects.measured_beside(run.organization_id, run.name, base_model).first()
    if present is None:
        return None
    folder.mkdir(exist_ok=True)
    try:
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
            blobs.get(f"{present.storage_prefix}/{name}", folder / name)
    except FileNotFoundError:
        logger.error("A file of adapter %s, which is in production, is not in storage.", present.pk)
        return None
    return {"name": str(present), "digest": present.digest, "path": str(folder)}


def _lineage(run: TrainingRun) -> dict[str, Any]:
    version = run.dataset_version
    return {
        "training_run": str(run.pk),
        "dataset": version.dataset.name,
        "dataset_version": version.number,
        "fingerprint": version.fingerprint,
        "rows": {split["name"].lower(): split["rows"] for split in version.splits},
    }
