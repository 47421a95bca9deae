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
from training import catalogue, stages
from training.catalogue import BaseModel
from training.estimating import Estimate, estimate, require_fit
from training.models import Adapter, TrainingRun
from training.trainer.config import TrainingConfig


@transaction.atomic
def start_run(
    *, actor: Principal, version: DatasetVersion, base_model: str | None, name: str | None, config: TrainingConfig
) -> TrainingRun:
    """Queue a fine-tuning run of `version`.

    Raises NotAllowed, and Invalid: DATASET_NOT_READY, DATASET_DELETED, UNKNOWN_BASE_MODEL, BASE_MODEL_UNAVAILABLE, a bad name,
    or DOES_NOT_FIT where it is known that the memory of no device would suffice.
    Raises QuotaExceeded for a run too many, and where the month's minutes or the storage for its adapter are used up:
    how much of those it takes shows only in the end, so the last run may take more than was left.
    """
    base = _startable(actor, version, base_model)
    wanted = _name_of(version, name)
    known = require_fit(version, base, wanted, config)
    return _queued(
        TrainingRun(
            organization_id=version.organization_id,
            created_by_id=actor.user_id,
            name=wanted,
            dataset_version=version,
            base_model_name=base.name,
            base_model_revision=base.revision,
            config=config.to_json(),
            estimate=known and known.to_json(),
        )
    )


def estimate_run(
    *, actor: Principal, version: DatasetVersion, base_model: str | None, name: str | None, config: TrainingConfig
) -> Estimate:
    """What a run of `version` would take. Raises what start_run does for its input, and Invalid with
    ESTIMATE_PENDING, or with the code with which its rows could not be counted.

    No transaction of its own: a refusal must not take back that a worker was asked to count.
    """
    return estimate(version, _startable(actor, version, base_model), _name_of(version, name), config)


def _name_of(version: DatasetVersion, name: str | None) -> str:
    return plain_text(name, "name", 150) if name is not None else f"{version.dataset.name[:130]} v{version.number}"


def _startable(actor: Principal, version: DatasetVersion, base_model: str | None) -> BaseModel:
    """The base model of a run that somebody may start."""
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
    return base


@transaction.atomic
def resume_run(*, actor: Principal, run: TrainingRun, epochs: float | None, max_steps: int | None) -> TrainingRun:
    """Queue a run that goes on from where an ended one has stopped, with the same recipe, and a longer way if that is asked for.

    Raises NotAllowed, QuotaExceeded as start_run does, ConfigError for a length that cannot be, and Invalid: RUN_NOT_ENDED, NO_CHECKPOINT,
    NOTHING_LEFT, DATASET_DELETED, BASE_MODEL_UNAVAILABLE.
    """
    authorize(actor, Permission.START_RUN, run.organization_id)
    before = TrainingRun.objects.select_for_update(no_key=True).get(pk=run.pk)  # its checkpoint stays until we name it
    if not before.has_ended:
        raise Invalid(
            f"It is {before.status}, and goes on by itself: only a run that has ended is resumed.", code="RUN_NOT_ENDED"
        )
    if not before.checkpoint:
        raise Invalid("It has no checkpoint to go on from, or not any more: start a new run.", code="NO_CHECKPOINT")
    old = TrainingConfig.from_json(before.config)
    longer = {"epochs": epochs, "max_steps": max_steps}
    config = TrainingConfig.from_json(old.to_json() | {name: each for name, each in longer.items() if each is not None})
    if before.status == JobStatus.SUCCEEDED and config == old:
        raise Invalid(
            "It has taken all its steps, or has stopped early: ask for more epochs, or more maxSteps.",
            code="NOTHING_LEFT",
            field="epochs",
        )
    base = catalogue.named(before.base_model_name)
    if not base.available and base is not catalogue.default():
        raise catalogue.unavailable(base)
    return _queued(
        TrainingRun(
            organization_id=before.organization_id,
            created_by_id=actor.user_id,
            name=before.name,
            dataset_version=before.dataset_version,
            base_model_name=before.base_model_name,
            base_model_revision=before.base_model_revision,
            config=config.to_json(),
            resumed_from=before,
        )
    )


def _queued(run: TrainingRun) -> TrainingRun:
    run.save(force_insert=True)
    require_left(run.organization_id, UsageKind.TRAINING_SECONDS, UsageKind.STORAGE_BYTES)
    reserve(run.organization_id, UsageKind.RUNS, 1, key=run.usage_key)
    hold(run.dataset_version, holder=run.usage_key, label=f"training run {run.name}")
    run.created()
    ring(TrainingRun.queue)
    return run


@transaction.atomic
def cancel_run(*, actor: Principal, run: TrainingRun) -> TrainingRun:
    """Stop a run: queued at once, running after its trainer has saved. An ended one stays as it ended. Raises NotAllowed."""
    authorize(actor, Permission.CANCEL_RUN, run.organization_id)
    cancelled: Any = request_cancel(run)
    return cancelled


@transaction.atomic
def promote_adapter(*, actor: Principal, adapter: Adapter, force: bool) -> Adapter:
    """Put it into production, the one of its name. Raises NotAllowed, and what stages.promote does."""
    authorize(actor, Permission.MANAGE_ADAPTERS, adapter.organization_id)
    return stages.promote(adapter, by=actor.name, force=force)


@transaction.atomic
def archive_adapter(*, actor: Principal, adapter: Adapter) -> Adapter:
    """Take it out of use, for now. Raises NotAllowed, and what stages.archive does."""
    authorize(actor, Permission.MANAGE_ADAPTERS, adapter.organization_id)
    return stages.archive(adapter, by=actor.name)
