"""How many rows a product is to have, so that each row comes out the same whoever shares it.

A library of linear algebra chooses its loops by the number of rows, and other loops add in another order: a row of a
product of five may differ in its last bits from the same row alone. Which sizes agree is the machine's and the
library's own affair, and so they are asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import torch

from training.trainer.quantization import cache_dequantized_weights

logger = logging.getLogger(__name__)

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@torch.inference_mode()
def steady_sizes(layers: Iterable[Any], most: int, dtype: torch.dtype, device: torch.device) -> list[int]:
    """The batch sizes, `most` the last of them, in which each row has the bits that it has in a batch of `most`."""
    sizes = [size for size in SIZES if size < most]
    random = torch.Generator().manual_seed(0)
    for layer in _one_of_each(layers):
        cache_dequantized_weights(layer)
        x = torch.randn(most, 1, layer.in_features, generator=random).to(device, dtype)
        whole = layer(x)
        if not torch.equal(layer(x.roll(1, 0)), whole.roll(1, 0)):
            logger.warning("Rows of one product differ by their place: texts may depend on what shares a batch")
        sizes = [size for size in sizes if torch.equal(layer(x[:size]), whole[:size])]
    return [*sizes, most]


def _one_of_each(layers: Iterable[Any]) -> list[Any]:
    """One layer of each kind and shape."""
    return list({(type(layer), layer.in_features, layer.out_features): layer for layer in layers}.values())
