"""What a run will take, told before it starts: memory, time, steps, tokens.

The lengths of the rows come from a worker (token_counts.py), what they cost from training hosts (devices.py) and from the
organization's earlier runs. Steps are the trainer's own arithmetic. numpy is imported by whoever asks first: the web starts without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from statistics import median
from typing import TYPE_CHECKING, Any

from django.conf import settings

from common.errors import Invalid
from common.jobs import JobStatus
from datasets.holds import DatasetDeleted
from datasets.models import DatasetVersion
from training.catalogue import BaseModel
from training.devices import known_devices
from training.models import Adapter, Device, TrainingRun
from training.token_counts import ask
from training.trainer.config import Quantization, TrainingConfig
from training.trainer.costs import TEST_PASSES, Costs, Estimator, Shape, Workload

if TYPE_CHECKING:
    from training.trainer.lengths import Lengths

ESTIMATE_PENDING = "ESTIMATE_PENDING"
DOES_NOT_FIT = "DOES_NOT_FIT"
MODELLED_RANGE = (0.7, 1.5)
MEASURED_RANGE = (0.85, 1.25)
EARLIER_RUNS = 5
MB = 1_000_000
_SMALLER = (
    ("batch_size", "batchSize", 1),
    ("max_sequence_tokens", "maxSequenceTokens", 16),
    ("lora_rank", "loraRank", 1),
)
"""What takes less memory where it is less, in a config and in the API, and the least that it can be."""


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


class Uncounted(Invalid):
    """The rows could not be counted, with the code and the words of the count that failed."""


def estimate(version: DatasetVersion, base: BaseModel, name: str, config: TrainingConfig) -> Estimate:
    """Of a run of a finished version, with this name, on the device that would take the shortest time of those that it fits.

    Raises Pending, having asked for what is missing, Uncounted where asking again does not help for now, and Invalid for a
    base model whose files are yet to be had, and where this platform makes no estimates.
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
    splits, devices = _lengths(version, base), known_devices(base)
    if splits is None:
        raise Pending("The version's rows are being counted in the base model's tokens: ask again in a moment.")
    if not devices:
        raise Pending("No host that trains has measured its device yet: ask again in a moment.")
    passes = _test_passes(version, base, name)
    work = _workload(splits, base, config, passes)
    shape, earlier = Shape.of(base.folder), _earlier_runs(version, base, config)
    soonest = _until_soonest_end(work, splits, base, config, passes)
    found = [_on(device, shape, work, soonest, config, earlier) for device in devices]
    return min(found, key=lambda each: (not each.fits, each.seconds))


def require_fit(version: DatasetVersion, base: BaseModel, name: str, config: TrainingConfig) -> Estimate | None:
    """The estimate of a run that is about to be started, or None where it is not known.

    Raises Invalid with DOES_NOT_FIT, but not for a run in several processes, nor for one that smaller micro-batches would
    save on an accelerator.
    """
    if not settings.ESTIMATES or not version.storage_prefix or not base.available:
        return None
    try:
        found = estimate(version, base, name, config)
    except (Pending, Uncounted):
        return None
    if found.fits or settings.TRAINER_PROCESSES > 1:  # nobody has measured what several take together
        return found
    splits, devices, shape = _lengths(version, base), known_devices(base), Shape.of(base.folder)
    assert splits is not None, "the run has been estimated"
    work = _workload(splits, base, config)
    if any(each.kind == "cuda" and _estimator(each, shape).fits(work.halved(), config) for each in devices):
        return found  # the trainer finds its memory short, halves its micro-batches, and goes on
    raise _refusal(splits, base, config, max(devices, key=_free_bytes))


def _refusal(splits: Mapping[str, Lengths], base: BaseModel, config: TrainingConfig, device: Device) -> Invalid:
    """In the figures of one device."""
    estimator = _estimator(device, Shape.of(base.folder))
    peak = estimator.peak_bytes(_workload(splits, base, config), config)
    return Invalid(
        f"The run would take about {peak / MB:,.0f} MB of memory, and {_free_bytes(device) / MB:,.0f} MB are there. "
        + _what_would_fit(splits, base, config, estimator),
        code=DOES_NOT_FIT,
        field="config",
    )


def _free_bytes(device: Device) -> int:
    return int(device.costs["measurement"]["free_bytes"])


def _what_would_fit(
    splits: Mapping[str, Lengths], base: BaseModel, config: TrainingConfig, estimator: Estimator
) -> str:
    """Single changes that would, of each kind the mildest."""
    fitting = []
    for changes in _changes(config):
        for words, changed in changes:
            if estimator.fits(_workload(splits, base, changed), changed):
                fitting.append(words)
                break
    return (
        f"It would fit with {' or '.join(fitting)}." if fitting else "No single change of its config would make it fit."
    )


def _changes(config: TrainingConfig) -> Iterator[list[tuple[str, TrainingConfig]]]:
    """Choices that take less memory, in the API's words: those of each kind together, the mildest first."""
    if config.quantization is not Quantization.NF4:
        yield [("quantization NF4", replace(config, quantization=Quantization.NF4))]
    for name, words, least in _SMALLER:
        value, changes = getattr(config, name) // 2, []
        while value >= least:
            changes.append((f"{words} {value}", replace(config, **{name: value})))
            value //= 2
        yield changes


def _on(
    device: Device,
    shape: Shape,
    work: Workload,
    soonest: Workload,
    config: TrainingConfig,
    earlier: Sequence[TrainingRun],
) -> Estimate:
    """Of work of which no less is done than `soonest`."""
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
        low=low * (estimator.step_seconds(soonest, config) * fastest + estimator.other_seconds(soonest)),
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
    """The organization's newest of the same base model and a similar config, in as many processes: others' say nothing
    to anybody.
    """
    runs = TrainingRun.objects.filter(
        organization_id=version.organization_id,
        status=JobStatus.SUCCEEDED,
        base_model_name=base.name,
        base_model_revision=base.revision,
        resumed_from=None,
        result__tokens_per_second__gt=0,
    ).order_by("-created_at", "-id")[: 4 * EARLIER_RUNS]
    alike = [run for run in runs if (run.result or {}).get("processes", 1) == settings.TRAINER_PROCESSES]
    return [run for run in alike if _similar(TrainingConfig.from_json(run.config), config)][:EARLIER_RUNS]


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


def _lengths(version: DatasetVersion, base: BaseModel) -> dict[str, Lengths] | None:
    """Of its splits; None, and asked for, while they are not counted. Raises Uncounted."""
    count = ask(version, base)
    if count.status == JobStatus.FAILED:
        raise Uncounted(count.error_message or "The version's rows could not be counted.", code=count.error_code)
    if count.status != JobStatus.SUCCEEDED or count.splits is None:
        return None
    from training.trainer.lengths import Lengths

    return {name: Lengths.from_json(value) for name, value in count.splits.items()}


def _test_passes(version: DatasetVersion, base: BaseModel, name: str) -> int:
    """The run's adapter and its base model are measured on the test rows, and the adapter that is in production, if any."""
    beside = Adapter.objects.measured_beside(version.organization_id, name, (base.name, base.revision))
    return TEST_PASSES + beside.exists()


def _workload(
    splits: Mapping[str, Lengths], base: BaseModel, config: TrainingConfig, test_passes: int = TEST_PASSES
) -> Workload:
    from training.workload import workload

    max_tokens = min(config.max_sequence_tokens, base.context_tokens)
    return workload(splits, config, max_tokens, settings.TRAINER_PROCESSES, test_passes)


def _until_soonest_end(
    work: Workload, splits: Mapping[str, Lengths], base: BaseModel, config: TrainingConfig, test_passes: int
) -> Workload:
    from training.workload import until_soonest_end

    max_tokens = min(config.max_sequence_tokens, base.context_tokens)
    return until_soonest_end(work, splits, config, max_tokens, test_passes)
