"""An adapter's files as somebody hands them over. Nothing of them is believed: the configuration may ask for nothing that is
not understood, and the header's names and shapes must be those that it and the base model call for before a weight is read.

The trainer, the inference engine, and whoever registers an adapter read them here, so that they agree.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from training.trainer import weights as weights_file
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS, digest_of
from training.trainer.weights import TYPES, Entry, NotWhole

MAX_CONFIG_BYTES = 1_000_000
MAX_ALPHA = 1e6
MAX_RANK = 256
PEFT_PREFIX = "base_model.model."

# What else peft's configuration may ask for changes what the layers compute, and is refused. These we follow, or they
# are words for training only.
_UNDERSTOOD = {
    *("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision", "inference_mode"),
    *("r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora", "init_lora_weights"),
    *("auto_mapping", "megatron_core", "qalora_group_size"),  # set by default, and without effect on their own
}


class UnfitAdapter(Exception):
    """The files are no adapter that can be used: ADAPTER_INVALID, ADAPTER_BASE_MISMATCH, or ADAPTER_DIGEST_MISMATCH."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class LayerShape:
    inputs: int
    outputs: int


@dataclass(frozen=True)
class AdapterLimits:
    """What an adapter must fit: the base's name, its layers that can take one, and the largest rank there is room for."""

    base_model: str
    layers: Mapping[str, LayerShape]
    max_rank: int


def shapes_of(layers: Mapping[str, Any]) -> dict[str, LayerShape]:
    return {name: LayerShape(layer.in_features, layer.out_features) for name, layer in layers.items()}


@dataclass(frozen=True)
class Described:
    """What its configuration says of an adapter."""

    base_model: Any
    """As it stands there, and so perhaps a path of somebody's, or nothing."""
    revision: Any
    rank: int
    alpha: float
    uses_rslora: bool
    targets: frozenset[str]
    """Last names of modules."""

    @property
    def scaling(self) -> float:
        return self.alpha / math.sqrt(self.rank) if self.uses_rslora else self.alpha / self.rank


@dataclass(frozen=True)
class Matrices:
    """LoRA matrices in host memory: per layer A [rank, inputs] and B [outputs, rank]."""

    rank: int
    scaling: float
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    largest: float
    """Of all their numbers, without its sign."""


@dataclass(frozen=True)
class Layout:
    """What files that fit hold, and where in the weights' file it is."""

    rank: int
    scaling: float
    layers: tuple[str, ...]
    entries: tuple[Entry, ...]
    """A and B of the first layer, of the second, and so on."""
    start: int
    largest: float

    def matrices(self, weights: memoryview) -> Matrices:
        """Views of the bytes that this was found of, or of the same again."""
        tensors = weights_file.views(weights, self.entries, self.start)
        pairs = zip(tensors[::2], tensors[1::2], strict=True)
        return Matrices(self.rank, self.scaling, dict(zip(self.layers, pairs, strict=True)), self.largest)


class Known(Protocol):
    """Remembers files that had their digest, and what was found of them, which depends on the limits, too."""

    def recall(self, digest: str, config: bytes, weights: memoryview) -> Layout | None: ...

    def remember(self, digest: str, config: bytes, weights: memoryview, layout: Layout) -> None: ...


def read(folder: Path, digest: str, limits: AdapterLimits, known: Known | None = None) -> Matrices:
    """Read a folder in peft's format whose files have this digest. Raises UnfitAdapter.

    Each file is read once, so that what has been verified is what is used, whoever writes to the folder meanwhile.
    """
    try:
        config = _read_config(folder / ADAPTER_CONFIG)
        weights = _read_weights(folder / ADAPTER_WEIGHTS, limits)
    except OSError as error:
        raise UnfitAdapter("ADAPTER_INVALID", f"The adapter's files cannot be read: {error.strerror}.") from error
    layout = None if known is None else known.recall(digest, config, weights)
    if layout is None:
        if digest_of(config, weights) != digest:
            raise UnfitAdapter("ADAPTER_DIGEST_MISMATCH", "The adapter's files are not those that were registered.")
        described = _described(config, limits.max_rank)
        if described.base_model != limits.base_model:
            raise UnfitAdapter("ADAPTER_BASE_MISMATCH", f"The adapter was not trained on {limits.base_model}.")
        layout = _layout(weights, described, limits)
        if known is not None:
            known.remember(digest, config, weights, layout)
    return layout.matrices(weights)


def read_config(path: Path, max_rank: int) -> Described:
    """Read peft's adapter_config.json. Raises UnfitAdapter, and OSError."""
    return _described(_read_config(path), max_rank)


def _read_config(path: Path) -> bytes:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise _unfit(f"{ADAPTER_CONFIG} is over {MAX_CONFIG_BYTES} bytes")
    return path.read_bytes()


def _described(content: bytes, max_rank: int) -> Described:
    try:
        config = json.loads(content)
    except (ValueError, RecursionError):
        raise _unfit(f"{ADAPTER_CONFIG} is not JSON") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _unfit(f"{ADAPTER_CONFIG} does not describe a LoRA adapter")
    for name, value in config.items():
        if value and name not in _UNDERSTOOD:
            raise _unfit(f"{name[:100]!r} is not supported")
    if config.get("bias", "none") != "none":
        raise _unfit("bias is not supported")
    rank, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= max_rank:
        raise _unfit(f"its rank should be a whole number from 1 to {max_rank}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not -MAX_ALPHA <= alpha <= MAX_ALPHA:
        raise _unfit("lora_alpha should be a number")
    if not isinstance(targets, list) or not targets or not all(isinstance(target, str) for target in targets):
        raise _unfit("target_modules should be a list of module names")
    return Described(
        base_model=config.get("base_model_name_or_path"),
        revision=config.get("revision"),
        rank=rank,
        alpha=alpha,
        uses_rslora=bool(config.get("use_rslora")),
        targets=frozenset(targets),
    )


def read_weights(
    path: Path, described: Described, limits: AdapterLimits
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Read the matrices of each layer. Raises UnfitAdapter, and OSError."""
    weights = _read_weights(path, limits)
    return dict(_layout(weights, described, limits).matrices(weights).layers)


def _read_weights(path: Path, limits: AdapterLimits) -> memoryview:
    most = weights_file.MAX_HEADER_BYTES + 4 * limits.max_rank * sum(
        layer.inputs + layer.outputs for layer in limits.layers.values()
    )
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise _unfit(f"{ADAPTER_WEIGHTS} has {size:,} bytes, more than there are in any adapter of the base model")
        content, read = np.empty(size, np.uint8).data, 0  # numpy asks for large pages: a fault for each 2 MB
        while read < size and (more := file.readinto(content[read:])):
            read += more
    if read < size:
        raise _unfit(f"{ADAPTER_WEIGHTS} became shorter while it was read")
    return content


def _layout(content: memoryview, described: Described, limits: AdapterLimits) -> Layout:
    targets, rank = described.targets, described.rank
    expected = {name: shape for name, shape in limits.layers.items() if name.rpartition(".")[2] in targets}
    missing = targets - {name.rpartition(".")[2] for name in expected}
    if missing:
        raise _unfit(f"the base model has no module named {min(missing)[:100]!r}")
    shapes: dict[str, list[int]] = {}
    for name, layer in expected.items():
        shapes[f"{PEFT_PREFIX}{name}.lora_A.weight"] = [rank, layer.inputs]
        shapes[f"{PEFT_PREFIX}{name}.lora_B.weight"] = [layer.outputs, rank]
    try:
        entries, start = weights_file.header(content)
        _check_header(entries, shapes)
        weights_file.check(content, entries.values(), start)
    except NotWhole:
        raise _unfit(f"{ADAPTER_WEIGHTS} is not a whole safetensors file") from None
    largest = weights_file.largest(content, entries.values(), start)
    if largest == math.inf:
        tensors = zip(entries, weights_file.views(content, entries.values(), start), strict=True)
        name = next(name for name, tensor in tensors if not tensor.isfinite().all())
        raise _unfit(f"{name} holds a number that is not finite")
    ordered = tuple(entries[name] for name in shapes)
    return Layout(rank, described.scaling, tuple(expected), ordered, start, largest)


def _check_header(entries: Mapping[str, Entry], shapes: Mapping[str, list[int]]) -> None:
    """Compare names, shapes, and types with what they must be, before any weight is looked at."""
    if entries.keys() != shapes.keys():
        odd = min(entries.keys() ^ shapes.keys())
        kind = "has an unknown" if odd in entries else "lacks the"
        raise _unfit(f"{ADAPTER_WEIGHTS} {kind} tensor {odd[:200]!r}")
    for name, shape in shapes.items():
        if entries[name].shape != shape:
            raise _unfit(f"{name} should have the shape {shape}")
        if entries[name].dtype not in TYPES:
            raise _unfit(f"{name} should be of a floating-point type")


def _unfit(reason: str) -> UnfitAdapter:
    return UnfitAdapter("ADAPTER_INVALID", f"The adapter cannot be used: {reason}.")
