"""What a run will take, told before it starts: memory, time, steps, tokens.

The lengths of the rows come from a worker (token_counts.py), what they cost from training hosts (devices.py) and from the
organization's earlier runs. Steps are the trainer's own arithmetic. numpy is imported by whoever asks first: the web starts without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from statistics import median
from typing import Any

from django.conf import settings

from common.errors import Invalid
from common.jobs import JobStatus
from datasets.holds import DatasetDeleted
from datasets.models import DatasetVersion
from training.catalogue import BaseModel
from training.devices import known_devices
from training.models import Device, TokenCount, TrainingRun
from training.token_counts import ask
from training.trainer.config import Quantization, TrainingConfig
from training.trainer.costs import Costs, Estimator, Shape, Workload

ESTIMATE_PENDING = "ESTIMATE_PENDING"
DOES_NOT_FIT = "DOES_NOT_FIT"
MODELLED_RANGE = (0.7, 1.5)
MEASURED_RANGE = (0.85, 1.25)
EARLIER_RUNS = 5
MB = 1_000_000


class Basis(Enum):
    MEASURED = "MEASURED"
    MODELLED = "MODELLED"


@dataclass(frozen=True)
class Estimate:
    peak_memory_bytes: int
    seconds: float
    low: float
    high: float
    tokens: int
    steps: int
    basis: Basis
    fits: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"basis": self.basis.value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Estimate:
        return cls(**{**value, "basis": Basis(value["basis"])})


class Pending(Invalid):
    """A worker has yet to measure something; asking again later helps."""

    code = ESTIMATE_PENDING


def estimate(version: DatasetVersion, base: BaseModel, config: TrainingConfig) -> Estimate:
    """Of a run of a finished version, on the device that would take the shortest time of those that it fits.

    Raises Pending, having asked for what is missing, and Invalid for a base model whose files are yet to be had, and where
    this platform makes no estimates.
    """
    if not settings.ESTIMATES:
        raise Invalid("This platform makes no estimates.", code="ESTIMATES_OFF")
    if not version.storage_prefix:
        raise DatasetDeleted("datasetVersionId")
    if not base.available:
        raise Invalid(
            f"The files of {base.name} are not on this machine yet, and its tokens cannot be counted.",
            code="BASE_MODEL_UNAVAILABLE",
            field="baseModel",
        )
    work, devices = _workload(version, base, config), known_devices(base)
    if work is None:
        raise Pending("The version's rows are being counted in the base model's tokens: ask again in a moment.")
    if not devices:
        raise Pending("No host that trains has measured its device yet: ask again in a moment.")
    shape, earlier = Shape.of(base.folder), _earlier_runs(version, base, config)
    found = [_on(device, shape, work, config, earlier) for device in devices]
    return min(found, key=lambda each: (not each.fits, each.seconds))


def require_fit(version: DatasetVersion, base: BaseModel, config: TrainingConfig) -> Estimate | None:
    """The estimate of a run that is about to be started, or None where it is not known. Raises Invalid with DOES_NOT_FIT."""
    if not settings.ESTIMATES or not version.storage_prefix or not base.available:
        return None
    try:
        found = estimate(version, base, config)
    except Pending:
        return None
    if found.fits:
        return found
    devices, shape = known_devices(base), Shape.of(base.folder)
    largest = max(devices, key=lambda each: int(each.costs["measurement"]["free_bytes"]))
    free = largest.costs["measurement"]["free_bytes"]
    fitting = [words for words, changed in _changes(config) if _fits(version, base, shape, largest, changed)]
    advice = (
        f"It would fit with {_either(fitting)}." if fitting else "No single change of its config would make it fit."
    )
    raise Invalid(
        f"The run would take about {found.peak_memory_bytes / MB:,.0f} MB of memory, and {free / MB:,.0f} MB are there. {advice}",
        code=DOES_NOT_FIT,
        field="config",
    )


def _changes(config: TrainingConfig) -> list[tuple[str, TrainingConfig]]:
    """Single choices that take less memory, the mildest of each kind first, as the API names them."""
    found = []
    for name, words, least in (
        ("batch_size", "batchSize", 1),
        ("max_sequence_tokens", "maxSequenceTokens", 16),
        ("lora_rank", "loraRank", 1),
    ):
        value = getattr(config, name) // 2
        while value >= least:
            found.append((f"{words} {value}", replace(config, **{name: value})))
            value //= 2
    if config.quantization is not Quantization.NF4:
        found.append(("quantization NF4", replace(config, quantization=Quantization.NF4)))
    return found


def _either(changes: Sequence[str]) -> str:
    """The first of each kind: that is the mildest."""
    kinds = list({change.split()[0]: change for change in reversed(changes)}.values())[::-1]
    return " or ".join(kinds)


def _fits(version: DatasetVersion, base: BaseModel, shape: Shape, device: Device, config: TrainingConfig) -> bool:
    work = _workload(version, base, config)
    return work is not None and _estimator(device, shape).fits(work, config)


def _on(
    device: Device, shape: Shape, work: Workload, config: TrainingConfig, earlier: Sequence[TrainingRun]
) -> Estimate:
    estimator = _estimator(device, shape)
    stepping, other = estimator.step_seconds(work, config), estimator.other_seconds(work)
    factors = [each for run in earlier if (each := _factor(run, device, estimator, work)) is not None]
    basis, (low, high) = (Basis.MEASURED, MEASURED_RANGE) if factors else (Basis.MODELLED, MODELLED_RANGE)
    factor = median(factors) if factors else 1.0
    seconds = stepping * factor + other
    fastest, slowest = (min(factors), max(factors)) if factors else (1.0, 1.0)
    return Estimate(
        peak_memory_bytes=estimator.peak_bytes(work, config),
        seconds=seconds,
        low=low * (stepping * fastest + other),
        high=high * (stepping * slowest + other),
        tokens=work.tokens,
        steps=work.steps,
        basis=basis,
        fits=estimator.fits(work, config),
    )


def _estimator(device: Device, shape: Shape) -> Estimator:
    return Estimator(shape, Costs.from_json(device.costs), is_cpu=device.kind == "cpu")


# ---------------------------------------------------------------------------------------------- earlier runs


def _earlier_runs(version: DatasetVersion, base: BaseModel, config: TrainingConfig) -> list[TrainingRun]:
    """The organization's newest of the same base model and a similar config: others' say nothing to anybody."""
    runs = TrainingRun.objects.filter(
        organization_id=version.organization_id,
        status=JobStatus.SUCCEEDED,
        base_model_name=base.name,
        base_model_revision=base.revision,
        resumed_from=None,
        result__tokens_per_second__gt=0,
    ).order_by("-created_at", "-id")[: 4 * EARLIER_RUNS]
    return [run for run in runs if _similar(TrainingConfig.from_json(run.config), config)][:EARLIER_RUNS]


def _similar(one: TrainingConfig, other: TrainingConfig) -> bool:
    """Whether a token of the one costs what one of the other does, but for what the model of the costs accounts for."""
    alike = ("quantization", "packing", "target_modules")
    near = ("batch_size", "max_sequence_tokens", "lora_rank")
    return (
        all(getattr(one, name) == getattr(other, name) for name in alike)
        and all(0.5 <= getattr(one, name) / getattr(other, name) <= 2 for name in near)
        and (one.lora_dropout > 0) == (other.lora_dropout > 0)
    )


def _factor(run: TrainingRun, device: Device, estimator: Estimator, work: Workload) -> float | None:
    """How much slower its steps were than the model of their costs says; None where another device has made them."""
    result = run.result or {}
    if (
        result.get("environment", {}).get("device") != device.name
        or not result.get("tokens")
        or not result.get("steps")
    ):
        return None
    config = TrainingConfig.from_json(run.config)
    done = replace(
        work,
        tokens=result["tokens"],
        squares=work.squares / work.tokens * result["tokens"],
        micro_batches=result["steps"] * config.gradient_accumulation,
    )
    return float(result["tokens"] / result["tokens_per_second"] / estimator.step_seconds(done, config))


# ---------------------------------------------------------------------------------------------- what there is to do


def _workload(version: DatasetVersion, base: BaseModel, config: TrainingConfig) -> Workload | None:
    """None, and asked for, while the version's tokens are not counted."""
    count: TokenCount = ask(version, base)
    if count.status != JobStatus.SUCCEEDED or count.splits is None:
        return None
    from training.trainer.lengths import Lengths
    from training.workload import workload

    splits = {name: Lengths.from_json(value) for name, value in count.splits.items()}
    return workload(splits, config, min(config.max_sequence_tokens, base.context_tokens))
