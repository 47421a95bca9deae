"""The choices of a training run. Imports no torch: the web process checks a config with it before a run exists."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any, get_type_hints

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "c_fc", "c_proj")
"""The linear layers of a starcoder2 block: attention, then the feed-forward part."""


class Quantization(StrEnum):
    """How the frozen base weights are held: in 4 bits (NF4 with double quantization), or as they are."""

    NF4 = "NF4"
    NONE = "NONE"


class Scheduler(StrEnum):
    """What becomes of the learning rate after the warm-up, as in transformers' schedules of these names."""

    COSINE = "COSINE"
    LINEAR = "LINEAR"
    CONSTANT = "CONSTANT"


class ConfigError(ValueError):
    """A choice that cannot be used: which field, and what it should look like."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


@dataclass(frozen=True)
class TrainingConfig:
    """A QLoRA recipe. Each instance is valid: making one with a bad value raises ConfigError."""

    epochs: float = 3.0
    """Passes over the training split; with a fraction the last pass stops on the way."""
    max_steps: int | None = None
    """Stop after this many optimizer steps where the epochs would take more. null: the epochs decide."""
    learning_rate: float = 2e-4
    """The peak, reached at the end of the warm-up."""
    scheduler: Scheduler = Scheduler.COSINE
    """COSINE and LINEAR fall to zero at the last step; CONSTANT stays at the peak."""
    warmup_ratio: float = 0.03
    """The share of all steps in which the learning rate rises linearly from zero (rounded up to whole steps)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, on the adapter's weights."""
    max_grad_norm: float = 1.0
    """The gradient's L2 norm is scaled down to this where it is larger."""
    batch_size: int = 4
    """Sequences in a micro-batch: rows, or, packed, as many rows as fit batch_size * max_sequence_tokens tokens."""
    gradient_accumulation: int = 1
    """Micro-batches per optimizer step."""
    max_sequence_tokens: int = 1024
    """Longer rows are shortened (encoding.py says how). More than the base model's context counts as its context."""
    packing: bool = True
    """Fill micro-batches by tokens instead of by rows. Rows never see each other either way, and none is padded."""
    fim_rate: float = 0.0
    """The share of the training split's texts whose middle is moved to the end (fim.py). The base model's tokenizer needs
    starcoder2's tokens for that."""
    quantization: Quantization = Quantization.NF4
    """How the base model is held while the adapter is trained."""
    lora_rank: int = 16
    """The inner width of each pair of adapter matrices."""
    lora_alpha: int = 32
    """The adapter's output is scaled by lora_alpha / lora_rank."""
    lora_dropout: float = 0.05
    """The share of an adapter's inputs that are zeroed in each training step. 0 is a sixth faster on a CPU."""
    target_modules: tuple[str, ...] = LINEAR_LAYERS
    """The linear layers that get an adapter, by name; null means all of a block."""
    eval_every_steps: int | None = None
    """Optimizer steps between validations. null: four times, evenly spread. The end is always validated."""
    checkpoint_every_steps: int | None = None
    """Optimizer steps between checkpoints. null: ten times, evenly spread. The end always leaves one."""
    keep_checkpoints: int = 2
    """How many of the newest checkpoints stay."""
    early_stopping_patience: int | None = None
    """End after so many validations in a row without a better loss, and leave the adapter of the best validated step.
    A number larger than there are validations ends nothing, and leaves the best all the same. null: neither."""
    seed: int = 17
    """Decides the initial adapter, the order of rows, and what dropout zeroes: the same seed, the same adapter."""

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:  # NaN is in no range
                raise ConfigError(name, f"{value} is not from {low:,.10g} to {high:,.10g}.")
        for name in ("epochs", "learning_rate", "max_grad_norm"):
            if getattr(self, name) == 0:
                raise ConfigError(name, "Must be more than 0.")
        unknown = [name for name in self.target_modules if name not in LINEAR_LAYERS]
        if unknown or not self.target_modules:
            raise ConfigError("target_modules", f"Choose one or more of {', '.join(LINEAR_LAYERS)}.")
        # One order, so that the same choice gives the same adapter, file for file.
        object.__setattr__(self, "target_modules", tuple(n for n in LINEAR_LAYERS if n in self.target_modules))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TrainingConfig:
        """Read a config; what is absent gets its default.

        Raises ConfigError with the field's name for a value of the wrong type or range and for an unknown field.
        """
        known = get_type_hints(cls)
        for name in value:
            if name not in known:
                raise ConfigError(name, "There is no such field.")
        return cls(**{name: _typed(name, known[name], value[name]) for name in known if name in value})

    def to_json(self) -> dict[str, Any]:
        """Every field, in the order of the class; from_json reads it back."""
        return {**asdict(self), "target_modules": list(self.target_modules)}


_LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (0, 1_000),
    "max_steps": (1, 10_000_000),
    "learning_rate": (0, 1),
    "warmup_ratio": (0, 1),
    "weight_decay": (0, 1),
    "max_grad_norm": (0, 1_000),
    "batch_size": (1, 1_024),
    "gradient_accumulation": (1, 1_024),
    "max_sequence_tokens": (16, 131_072),
    "fim_rate": (0, 1),
    "lora_rank": (1, 256),
    "lora_alpha": (1, 4_096),
    "lora_dropout": (0, 0.9),
    "eval_every_steps": (1, 10_000_000),
    "checkpoint_every_steps": (1, 10_000_000),
    "keep_checkpoints": (1, 100),
    "early_stopping_patience": (1, 1_000_000),
    "seed": (0, 2**31 - 1),
}


def _typed(name: str, kind: Any, value: Any) -> Any:
    """Return a JSON value as the field's type; a default stands in for null where the field takes none."""
    if kind == tuple[str, ...]:
        if value is None:
            return LINEAR_LAYERS
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise ConfigError(name, "Must be a list of layer names.")
    if value is None and kind == (int | None):
        return None
    if kind in (int, int | None) and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if kind is bool and isinstance(value, bool):
        return value
    if isinstance(kind, type) and issubclass(kind, StrEnum) and value in [member.value for member in kind]:
        return kind(value)
    raise ConfigError(name, f"Must be {_wanted(kind)}.")


def _wanted(kind: Any) -> str:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return f"one of {', '.join(kind)}"
    words = {float: "a number", bool: "true or false", int: "a whole number"}
    return words.get(kind, "a whole number or null")


_NAMES = {field.name for field in fields(TrainingConfig)}
assert _LIMITS.keys() <= _NAMES
