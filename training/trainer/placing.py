"""An adapter's matrices in a model, for as long as somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from training.trainer.config import TrainingConfig
from training.trainer.lora import LoraLinear
from training.trainer.reading import Matrices


@contextmanager
def in_place(
    model: Any, bases: Mapping[str, Any], matrices: Matrices, present: Mapping[str, LoraLinear] | None = None
) -> Iterator[None]:
    """Within this the model has this adapter on its own layers, in the place of the `present` one.

    `bases` are the linear layers of the model by name.
    """
    other = {name: _around(bases[name], *pair, matrices.scaling) for name, pair in matrices.layers.items()}
    _put(model, {**bases, **other})
    try:
        yield
    finally:
        _put(model, {**bases, **(present or {})})


def _around(base: Any, a: torch.Tensor, b: torch.Tensor, scaling: float) -> LoraLinear:
    layer = LoraLinear(base, TrainingConfig(lora_rank=a.shape[0], lora_dropout=0.0))
    layer.scaling = scaling
    layer.lora_A.data.copy_(a)
    layer.lora_B.data.copy_(b)
    return layer.eval()


def _put(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    for name, layer in layers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, layer)
