"""The adapter that is in production, measured on the test rows of the one that may take its place.

Losses on two test splits are no comparison; and what these rows are is fixed before anybody knows how either does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.child import ChildError
from training.trainer.evaluation import mean_loss
from training.trainer.lora import LoraLinear
from training.trainer.reading import MAX_RANK, AdapterLimits, LayerShape, Matrices, UnfitAdapter, read
from training.trainer.step import Run


def measure_production(run: Run, rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return its name, digest, and loss on these test rows; nothing where there is none.

    One that cannot be used has no loss, which the log explains: that is no failure of this run.
    """
    production = run.orders.production
    if production is None:
        return {}
    try:
        bases = linear_layers(run.model, run.layers)
        limits = AdapterLimits(run.orders.base_name, _shapes(bases), MAX_RANK)
        matrices = read(production.path, production.digest, limits)
        with _in_place(run, bases, matrices):
            loss = mean_loss(run, run.examples["test"], rows)
    except (UnfitAdapter, ChildError) as error:
        run.attempt.events.log(
            f"{production.name}, which is in production, could not be measured: {error.message}", level="WARNING"
        )
        loss = None
    return {
        "production_adapter": production.name,
        "production_digest": production.digest,
        "production_test_loss": loss,
    }


def linear_layers(model: Any, wrapped: Mapping[str, LoraLinear]) -> dict[str, Any]:
    """The frozen linear layers that can take an adapter, all but the output head, those that have one included."""
    inner = {id(layer.base) for layer in wrapped.values()} | {id(model.get_output_embeddings())}
    bare = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in inner
    }
    return bare | {name: layer.base for name, layer in wrapped.items()}


def _shapes(layers: Mapping[str, Any]) -> dict[str, LayerShape]:
    return {name: LayerShape(layer.in_features, layer.out_features) for name, layer in layers.items()}


@contextmanager
def _in_place(run: Run, bases: Mapping[str, Any], matrices: Matrices) -> Iterator[None]:
    """Within this the model has the other adapter, on its own layers, in the place of the run's."""
    present: dict[str, nn.Module] = {name: run.layers.get(name, base) for name, base in bases.items()}
    other = {name: _with(run, bases[name], *pair, matrices.scaling) for name, pair in matrices.layers.items()}
    _put(run.model, {**bases, **other})
    try:
        yield
    finally:
        _put(run.model, present)


def _with(run: Run, base: Any, a: torch.Tensor, b: torch.Tensor, scaling: float) -> LoraLinear:
    layer = LoraLinear(base, replace(run.orders.config, lora_rank=a.shape[0]))
    layer.scaling = scaling
    layer.lora_A.data.copy_(a)
    layer.lora_B.data.copy_(b)
    return layer.eval()


def _put(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    for name, layer in layers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, layer)
