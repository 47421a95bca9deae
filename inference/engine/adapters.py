"""Adapters on their way to the model: fetched, verified against their digest, checked, and kept in host memory.

Nothing of a file is believed: the digest comes with the request, and the header's names and shapes must be those that
the base model and the configuration call for before a single weight is read.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from inference.engine.errors import EngineError
from training.trainer.artifact import adapter_digest

logger = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1_000_000
MAX_ALPHA = 1e6
FETCHED_AT_ONCE = 4
PEFT_PREFIX = "base_model.model."

# What else peft's configuration may ask for changes what the layers compute, and is refused. These we follow, or they
# are words for training only.
_UNDERSTOOD = {
    *("peft_type", "peft_version", "task_type", "base_model_name_or_path", "revision", "inference_mode"),
    *("r", "lora_alpha", "lora_dropout", "target_modules", "bias", "use_rslora", "init_lora_weights"),
    *("auto_mapping", "megatron_core", "qalora_group_size"),  # set by default, and without effect on their own
}


@dataclass(frozen=True)
class AdapterRef:
    """An adapter as a request names it. Two organizations never share a slot, not even for equal files."""

    organization: str
    key: str
    digest: str


@dataclass(frozen=True)
class LayerShape:
    inputs: int
    outputs: int


@dataclass(frozen=True)
class AdapterWeights:
    """Verified LoRA matrices in host memory, as a slot takes them: per layer A [rank, inputs] and B [rank, outputs].

    B is transposed, and holds the file's times the adapter's scaling.
    """

    ref: AdapterRef
    rank: int
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class AdapterLimits:
    """What an adapter must fit: the base's name, its layers that can take one, and the largest rank of a slot."""

    base_model: str
    layers: Mapping[str, LayerShape]
    max_rank: int


def read_adapter(folder: Path, ref: AdapterRef, limits: AdapterLimits) -> AdapterWeights:
    """Read a folder in peft's format.

    Raises EngineError ADAPTER_DIGEST_MISMATCH, ADAPTER_BASE_MISMATCH, and ADAPTER_INVALID.
    """
    try:
        if adapter_digest(folder) != ref.digest:
            raise EngineError("ADAPTER_DIGEST_MISMATCH", "The adapter's files are not those that were registered.")
        rank, scaling, targets = _read_config(folder / CONFIG_FILE, limits)
        return AdapterWeights(ref, rank, _read_weights(folder / WEIGHTS_FILE, rank, scaling, targets, limits))
    except OSError as error:
        raise EngineError("ADAPTER_INVALID", f"The adapter's files cannot be read: {error.strerror}.") from error


def _read_config(path: Path, limits: AdapterLimits) -> tuple[int, float, set[str]]:
    """Return rank, scaling, and the target modules' last names."""
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise _unfit(f"{CONFIG_FILE} is over {MAX_CONFIG_BYTES} bytes")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise _unfit(f"{CONFIG_FILE} is not JSON") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _unfit(f"{CONFIG_FILE} does not describe a LoRA adapter")
    for name, value in config.items():
        if value and name not in _UNDERSTOOD:
            raise _unfit(f"{name[:100]!r} is not supported")
    if config.get("bias", "none") != "none":
        raise _unfit("bias is not supported")
    if config.get("base_model_name_or_path") != limits.base_model:
        raise EngineError("ADAPTER_BASE_MISMATCH", f"The adapter was not trained on {limits.base_model}.")
    rank, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= limits.max_rank:
        raise _unfit(f"its rank should be a whole number from 1 to {limits.max_rank}")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not -MAX_ALPHA <= alpha <= MAX_ALPHA:
        raise _unfit("lora_alpha should be a number")
    if not isinstance(targets, list) or not targets or not all(isinstance(target, str) for target in targets):
        raise _unfit("target_modules should be a list of module names")
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return rank, scaling, set(targets)


def _read_weights(
    path: Path, rank: int, scaling: float, targets: set[str], limits: AdapterLimits
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    expected = {name: shape for name, shape in limits.layers.items() if name.rpartition(".")[2] in targets}
    missing = targets - {name.rpartition(".")[2] for name in expected}
    if missing:
        raise _unfit(f"the base model has no module named {min(missing)[:100]!r}")
    shapes: dict[str, list[int]] = {}
    for name, layer in expected.items():
        shapes[f"{PEFT_PREFIX}{name}.lora_A.weight"] = [rank, layer.inputs]
        shapes[f"{PEFT_PREFIX}{name}.lora_B.weight"] = [layer.outputs, rank]
    try:
        with safe_open(path, framework="pt") as file:
            _check_header(file, shapes)
            weights = {name: file.get_tensor(name) for name in shapes}
    except SafetensorError:
        raise _unfit(f"{WEIGHTS_FILE} is not a whole safetensors file") from None
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise _unfit(f"{name} holds a number that is not finite")
    read: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name in expected:
        a, b = weights[f"{PEFT_PREFIX}{name}.lora_A.weight"], weights[f"{PEFT_PREFIX}{name}.lora_B.weight"]
        read[name] = (a.float(), (b.float() * scaling).T.contiguous())
        if not read[name][1].isfinite().all():
            raise _unfit(f"{PEFT_PREFIX}{name}.lora_B.weight times lora_alpha is not finite")
    return read


def _check_header(file: Any, shapes: Mapping[str, list[int]]) -> None:
    """Compare names, shapes, and types with what they must be, before any weight is read."""
    names = set(file.keys())
    if names != shapes.keys():
        odd = min(names ^ shapes.keys())
        raise _unfit(f"{WEIGHTS_FILE} {'has an unknown' if odd in names else 'lacks the'} tensor {odd[:200]!r}")
    for name, shape in shapes.items():
        found = file.get_slice(name)
        if found.get_shape() != shape:
            raise _unfit(f"{name} should have the shape {shape}")
        if found.get_dtype() not in {"F32", "F16", "BF16"}:
            raise _unfit(f"{name} should be of a floating-point type")


class AdapterStore:
    """Adapters in host memory, the least recently used out first; safe to use from many threads.

    `fetch` returns the folder of an adapter's files for its key and digest, and raises FileNotFoundError where storage
    has none. One adapter is fetched by one thread at a time, while others wait for it and not for each other's.
    """

    def __init__(self, fetch: Callable[[str, str], Path], limits: AdapterLimits, capacity: int) -> None:
        self._fetch = fetch
        self._limits = limits
        self._capacity = capacity
        self._kept: OrderedDict[AdapterRef, AdapterWeights] = OrderedDict()
        self._loading: dict[AdapterRef, threading.Lock] = {}
        self._awaited: dict[AdapterRef, Future[AdapterWeights]] = {}
        self._lock = threading.Lock()
        self._fetchers = ThreadPoolExecutor(FETCHED_AT_ONCE, thread_name_prefix="adapters")

    def prefetch(self, ref: AdapterRef) -> Future[AdapterWeights]:
        """Begin to fetch an adapter, and return at once; the future raises what `get` raises.

        Whoever asks for one that is being fetched already waits for the same future, and takes no thread.
        """
        with self._lock:
            weights = self._kept.get(ref)
            if weights is not None:
                self._kept.move_to_end(ref)
                known: Future[AdapterWeights] = Future()
                known.set_result(weights)
                return known
            awaited = self._awaited.get(ref)
            if awaited is not None:
                return awaited
            future = self._awaited[ref] = self._fetchers.submit(self.get, ref)
        future.add_done_callback(lambda _: self._arrived(ref))  # outside the lock: it may be called at once
        return future

    def _arrived(self, ref: AdapterRef) -> None:
        with self._lock:
            self._awaited.pop(ref, None)

    def get(self, ref: AdapterRef) -> AdapterWeights:
        """Raises read_adapter's EngineErrors, and ADAPTER_NOT_FOUND or ADAPTER_UNAVAILABLE."""
        with self._lock:
            loading = self._loading.setdefault(ref, threading.Lock())
        with loading:
            weights = self._recall(ref)
            if weights is None:
                try:
                    weights = self._load(ref)
                    self._keep(weights)
                finally:
                    with self._lock:
                        self._loading.pop(ref, None)
            return weights

    def _recall(self, ref: AdapterRef) -> AdapterWeights | None:
        with self._lock:
            weights = self._kept.get(ref)
            if weights is not None:
                self._kept.move_to_end(ref)
                self._loading.pop(ref, None)
            return weights

    def _load(self, ref: AdapterRef) -> AdapterWeights:
        try:
            folder = self._fetch(ref.key, ref.digest)
        except FileNotFoundError:
            raise EngineError("ADAPTER_NOT_FOUND", "The adapter's files are not in storage.") from None
        except EngineError:
            raise
        except Exception as error:  # storage of any make, each with exceptions of its own
            logger.exception("Fetching an adapter failed")
            message = "The adapter's files cannot be fetched now; try again."
            raise EngineError("ADAPTER_UNAVAILABLE", message, retry_after_s=5) from error
        return read_adapter(folder, ref, self._limits)

    def _keep(self, weights: AdapterWeights) -> None:
        with self._lock:
            while len(self._kept) >= self._capacity:
                self._kept.popitem(last=False)
            self._kept[weights.ref] = weights


def _unfit(reason: str) -> EngineError:
    return EngineError("ADAPTER_INVALID", f"The adapter cannot be used: {reason}.")
