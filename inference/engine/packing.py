"""The base's weights in the order in which a CPU multiplies them, arranged once when the model is loaded.

Plain weights are rearranged by the library of linear algebra at each product, which for a few rows takes longer than the
product. oneDNN's own order (AVX-512: blocks of 16 outputs) takes no more memory, and gives a row the same bits in products
of nearly all numbers of rows; rows.py asks which.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from training.trainer.memory import free_bytes

ROWS = 16
"""The number of rows that the order is chosen for."""
MOST_COPIED_SHARE = 0.05
"""Of the memory that is free: a layer whose plain weight is needed beside the arranged one is copied up to this size."""


def pack(layers: Iterable[Any], head: Any) -> bool:
    """Arrange what is kept dequantized on a CPU, in place of it, and the output layer beside it; whether that was done."""
    packed = [layer for layer in layers if _is_plain(getattr(layer, "dequantized", None))]
    if not packed or not torch.backends.mkldnn.is_available():
        return False
    for layer in packed:
        weight = layer.dequantized
        del layer.dequantized
        _replace(layer, weight)
    if _is_plain(head.weight) and head.weight.nbytes <= MOST_COPIED_SHARE * free_bytes(head.weight.device):
        _replace(head, head.weight.detach())
    return True


def _is_plain(weight: Any) -> bool:
    return isinstance(weight, torch.Tensor) and weight.device.type == "cpu" and weight.dtype == torch.float32


def _replace(layer: Any, weight: torch.Tensor) -> None:
    arranged = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
    bias = None if layer.bias is None else layer.bias.detach()

    def forward(x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, arranged, bias, "none", [], "")
        return product

    layer.forward = forward
