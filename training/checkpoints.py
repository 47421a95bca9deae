"""The state that a run ended in: kept in storage for a while, so that another run can go on from it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings

from accounts.usage import release
from accounts.usage_kinds import UsageKind
from common import blobs
from common.jobs import ENDED, Lease
from common.supervision import Refused
from common.tenancy import operator
from training.models import TrainingRun
from training.trainer.checkpoint import MANIFEST, Checkpoint, newest_whole, whole

AGAIN = "Start a new run."


def newest_of(folder: Path) -> Checkpoint | None:
    """The newest whole one that this attempt, in `folder`, or any other attempt at the job has left on this host."""
    found = [newest_whole(attempt / "checkpoints") for attempt in folder.parent.iterdir()]
    return max((each for each in found if each is not None), key=lambda each: each.step, default=None)


def keep(run: TrainingRun, lease: Lease, folder: Path) -> dict[str, Any]:
    """Store it. Returns what the run's row says of it, which is nothing where there is none."""
    newest = newest_of(folder)
    if newest is None:
        return {}
    name = f"{lease.fence:04d}-checkpoint"
    blobs.put_folder(f"{run.artefacts}/{name}", newest.folder, last=MANIFEST)
    return {"checkpoint": name, "checkpoint_step": newest.step, "checkpoint_bytes": newest.size_bytes}


def fetch(run: TrainingRun, folder: Path) -> Checkpoint:
    """Copy what `run` has left into `folder`. Raises Refused where it is not there any more, or is not what was stored."""
    if not run.checkpoint:
        raise Refused(
            "NO_CHECKPOINT", f"The checkpoint of the run that this one goes on from is not kept any more. {AGAIN}"
        )
    prefix, place = f"{run.artefacts}/{run.checkpoint}", folder / f"step-{run.checkpoint_step:06d}"
    place.mkdir(parents=True, exist_ok=True)
    try:
        blobs.get(f"{prefix}/{MANIFEST}", place / MANIFEST)
        for name in _files_in(place / MANIFEST):
            blobs.get(f"{prefix}/{name}", place / name)
    except FileNotFoundError:
        pass
    fetched = whole(place)
    if fetched is None:
        raise Refused("CHECKPOINT_DAMAGED", f"The checkpoint of the run that this one goes on from is damaged. {AGAIN}")
    return fetched


def remove_old() -> None:
    """Those of runs that ended CHECKPOINT_DAYS ago, unless a run that may yet fetch one goes on from it."""
    with operator():
        old = TrainingRun.objects.exclude(checkpoint="").ended_before(timedelta(days=settings.CHECKPOINT_DAYS))
        runs = list(old)
    for run in runs:
        if _is_given_up(run):
            blobs.delete_folder(f"{run.artefacts}/{run.checkpoint}")


def _is_given_up(run: TrainingRun) -> bool:
    """The row comes first: who asks to go on from it then is refused, and does not find half of it."""
    with operator():
        held = TrainingRun.objects.select_for_update(no_key=True).filter(pk=run.pk, checkpoint=run.checkpoint).first()
        if held is None or held.resumed_by.exclude(status__in=ENDED).exists():
            return False
        TrainingRun.objects.filter(pk=run.pk).update(checkpoint="", checkpoint_step=None, checkpoint_bytes=None)
        release(run.organization_id, UsageKind.STORAGE_BYTES, key=run.checkpoint_usage_key)
    return True


def _files_in(manifest: Path) -> list[str]:
    """Names of files beside it. None where it cannot be read, which `whole` finds, too."""
    try:
        return [Path(file["name"]).name for file in json.loads(manifest.read_bytes())["files"]]
    except (ValueError, KeyError, TypeError):
        return []
