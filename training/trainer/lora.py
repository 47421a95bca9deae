"""LoRA (Hu et al., 2021) around frozen linear layers: y = x W' + b + alpha / rank * dropout(x) A' B'.

The layers compute what peft's compute. They are our own because peft's spend a third of a step on a CPU in copies; its
file format is what adapter.py writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from training.trainer.config import TrainingConfig
from training.trainer.quantization import dense_weight


class LoraLinear(nn.Module):
    """A frozen linear layer and a trainable pair of float32 matrices, A (rank, in) and B (out, rank).

    They start as in peft: A uniform (Kaiming, a = sqrt(5)), B zero, so that nothing has changed yet.
    """

    def __init__(self, base: nn.Linear, config: TrainingConfig) -> None:
        super().__init__()
        self.base = base
        self.scaling = config.lora_alpha / config.lora_rank
        self.dropout = config.lora_dropout
        self.enabled = True
        device = base.weight.device
        self.lora_A = nn.Parameter(torch.empty(config.lora_rank, base.in_features))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # on the CPU: one seed, one adapter on any device
        self.lora_A.data = self.lora_A.data.to(device)
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, config.lora_rank, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.enabled:
            output: torch.Tensor = self.base(x)
            return output
        dropped = nn.functional.dropout(x, self.dropout) if self.training and self.dropout else None
        result: torch.Tensor = _Lora.apply(x, dropped, self.base, self.lora_A, self.lora_B, self.scaling)
        return result


class _Lora(torch.autograd.Function):
    """Both products in one buffer, and by hand only the gradients that are wanted: none for the frozen weight."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        base: nn.Linear,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        a, b = a.to(x.dtype), b.to(x.dtype)
        rows = _rows(x if dropped is None else dropped)
        inner = rows @ a.t()
        output = nn.functional.linear(_rows(x), dense_weight(base), base.bias)
        output.addmm_(inner, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, inner, a, b)
        ctx.base, ctx.scaling, ctx.has_dropout = base, scaling, dropped is not None
        return output.view(*x.shape[:-1], output.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, inner, a, b = ctx.saved_tensors
        (gradient,) = gradients
        shape = (*gradient.shape[:-1], rows.shape[-1])
        gradient = _rows(gradient)
        to_inner = (gradient @ b).mul_(ctx.scaling)
        grad_a = (to_inner.t() @ rows).float()
        grad_b = (gradient.t() @ inner).mul_(ctx.scaling).float()
        grad_x = grad_dropped = None
        if ctx.needs_input_grad[0]:
            grad_x = gradient @ dense_weight(ctx.base)
            if not ctx.has_dropout:
                grad_x.addmm_(to_inner, a)
            grad_x = grad_x.view(shape)
        if ctx.has_dropout and ctx.needs_input_grad[1]:
            grad_dropped = (to_inner @ a).view(shape)
        return grad_x, grad_dropped, None, grad_a, grad_b, None


def add_lora(model: nn.Module, config: TrainingConfig) -> dict[str, LoraLinear]:
    """Wrap each linear layer whose name ends in one of the config's target_modules; return them by their full name.

    The same seed gives the same matrices. Raises ValueError where the model has no such layer.
    """
    torch.manual_seed(config.seed)
    found = [
        (name, layer)
        for name, layer in model.named_modules()
        if name.rpartition(".")[2] in config.target_modules and isinstance(layer, nn.Linear)
    ]
    if not found:
        raise ValueError(f"The base model has none of the layers {', '.join(config.target_modules)}.")
    layers = {name: LoraLinear(layer, config) for name, layer in found}
    for name, layer in layers.items():
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, layer)
    return layers


def linear_layers(model: Any, wrapped: Mapping[str, LoraLinear]) -> dict[str, Any]:
    """The frozen linear layers that can take an adapter, all but the output head, those that have one included."""
    others = {id(layer.base) for layer in wrapped.values()} | {id(model.get_output_embeddings())}
    bare = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in others
    }
    return bare | {name: layer.base for name, layer in wrapped.items()}


@contextmanager
def base_only(layers: Mapping[str, LoraLinear]) -> Iterator[None]:
    """Within this the model answers as the base model does."""
    for layer in layers.values():
        layer.enabled = False
    try:
        yield
    finally:
        for layer in layers.values():
            layer.enabled = True


def _rows(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1, tensor.shape[-1])
