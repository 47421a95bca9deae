"""What an adapter was made of: enough to make it again, and to say what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from training.models import Adapter
from training.trainer.config import TrainingConfig

READ_WITH = "training_run__dataset_version__dataset"
COLUMNS = (
    "base_model_name",
    "base_model_revision",
    "training_run__config",
    "training_run__result",
    "training_run__dataset_version__number",
    "training_run__dataset_version__fingerprint",
    "training_run__dataset_version__dataset__name",
)


@dataclass(frozen=True)
class Lineage:
    """Of one that was registered the platform knows the base model alone."""

    base_model: str
    base_revision: str
    dataset: str | None = None
    dataset_version: int | None = None
    fingerprint: str | None = None
    """Of the dataset's version: of its upload, its recipe, and the pipeline."""
    config: TrainingConfig | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """The versions of what computed it, and on what machine."""


def lineage_of(adapter: Adapter) -> Lineage:
    """Costs no query where the adapter was read with READ_WITH."""
    base, run = (adapter.base_model_name, adapter.base_model_revision), adapter.training_run
    if run is None:
        return Lineage(*base)
    version = run.dataset_version
    return Lineage(
        *base,
        dataset=version.dataset.name,
        dataset_version=version.number,
        fingerprint=version.fingerprint,
        config=TrainingConfig.from_json(run.config),
        environment={name: str(value) for name, value in (run.result or {}).get("environment", {}).items()},
    )
