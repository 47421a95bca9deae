"""What people ask of training, one function per verb."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from accounts.permissions import Permission, authorize
from accounts.usage import require_left, reserve
from accounts.usage_kinds import UsageKind
from common.errors import Invalid
from common.jobs import JobStatus, request_cancel
from common.queues import ring
from common.tenancy import Principal
from common.text import plain_text
from datasets.holds import hold
from datasets.models import DatasetVersion
from training import catalogue
from training.models import TrainingRun
from training.trainer.config import TrainingConfig


@transaction.atomic
def start_run(
    *, actor: Principal, version: DatasetVersion, base_model: str | None, name: str | None, config: TrainingConfig
) -> TrainingRun:
    """Queue a fine-tuning run of `version`.

    Raises NotAllowed, and Invalid: DATASET_NOT_READY, DATASET_DELETED, UNKNOWN_BASE_MODEL, BASE_MODEL_UNAVAILABLE, or a bad name.
    Raises QuotaExceeded for a run too many, and where the month's minutes or the storage for its adapter are used up:
    how much of those it takes shows only in the end, so the last run may take more than was left.
    """
    authorize(actor, Permission.START_RUN, version.organization_id)
    if version.status != JobStatus.SUCCEEDED:
        raise Invalid(
            f"The dataset version is {version.status}; a run needs one that has SUCCEEDED.",
            code="DATASET_NOT_READY",
            field="datasetVersionId",
        )
    base = catalogue.named(base_model) if base_model is not None else catalogue.default()
    if not base.available and base is not catalogue.default():
        raise catalogue.unavailable(base)
    run = TrainingRun.objects.create(
        organization_id=version.organization_id,
        created_by_id=actor.user_id,
        name=plain_text(name, "name", 150) if name is not None else f"{version.dataset.name[:130]} v{version.number}",
        dataset_version=version,
        base_model_name=base.name,
        base_model_revision=base.revision,
        config=config.to_json(),
    )
    require_left(run.organization_id, UsageKind.TRAINING_SECONDS, UsageKind.STORAGE_BYTES)
    reserve(run.organization_id, UsageKind.RUNS, 1, key=run.usage_key)
    hold(version, holder=run.usage_key, label=f"training run {run.name}")
    run.created()
    ring(TrainingRun.queue)
    return run


@transaction.atomic
def cancel_run(*, actor: Principal, run: TrainingRun) -> TrainingRun:
    """Stop a run: queued at once, running after its trainer has saved. An ended one stays as it ended. Raises NotAllowed."""
    authorize(actor, Permission.CANCEL_RUN, run.organization_id)
    cancelled: Any = request_cancel(run)
    return cancelled
