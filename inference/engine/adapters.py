"""Adapters on their way to the model: fetched, verified against their digest, checked, and kept in host memory.

The digest comes with the request; the trainer's reading.py says what else is not believed of a file.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from inference.engine.errors import EngineError
from training.trainer.artifact import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from training.trainer.reading import AdapterLimits, LayerShape, UnfitAdapter, read

__all__ = ["AdapterLimits", "AdapterRef", "AdapterStore", "AdapterWeights", "LayerShape", "read_adapter"]

logger = logging.getLogger(__name__)

CONFIG_FILE = ADAPTER_CONFIG
WEIGHTS_FILE = ADAPTER_WEIGHTS


@dataclass(frozen=True)
class AdapterRef:
    """An adapter as a request names it. Two organizations never share a slot, not even for equal files."""

    organization: str
    key: str
    digest: str


@dataclass(frozen=True)
class AdapterWeights:
    """Verified LoRA matrices in host memory: per layer A [rank, inputs] and B [outputs, rank]."""

    ref: AdapterRef
    rank: int
    scaling: float
    layers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def read_adapter(folder: Path, ref: AdapterRef, limits: AdapterLimits) -> AdapterWeights:
    """Read a folder in peft's format.

    Raises EngineError ADAPTER_DIGEST_MISMATCH, ADAPTER_BASE_MISMATCH, and ADAPTER_INVALID.
    """
    try:
        matrices = read(folder, ref.digest, limits)
    except UnfitAdapter as error:
        raise EngineError(error.code, error.message) from error
    return AdapterWeights(ref, matrices.rank, matrices.scaling, matrices.layers)


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
        self._lock = threading.Lock()

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
