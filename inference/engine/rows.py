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

logger = logging.getLogger(__name__)

SIZES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128)

JOINED = (2, 3, 5, 8, 13, 24, 31, 48, 64, 77, 100, 129, 160, 200, 255)


@torch.inference_mode()
def steady_sizes(layers: Iterable[Any], most: int, dtype: torch.dtype, device: torch.device) -> list[int]:
    """The batch sizes, `most` the last of them, in which each row has the bits that it has in a batch of `most`."""
    sizes = [size for size in SIZES if size < most]
    random = torch.Generator().manual_seed(0)
    for layer in _one_of_each(layers):
        x = torch.randn(most, 1, layer.in_features, generator=random).to(device, dtype)
        whole = layer(x)
        if not torch.equal(layer(x.roll(1, 0)), whole.roll(1, 0)):
            logger.warning("Rows of one product differ by their place: texts may depend on what shares a batch")
        sizes = [size for size in sizes if torch.equal(layer(x[:size]), whole[:size])]
    return [*sizes, most]


@torch.inference_mode()
def rows_may_be_joined(layers: Iterable[Any], most: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a row has the same bits in products of two rows, of `most`, and of any number between, as far as samples tell.

    Where it is so, prompts of different lengths may share a pass.
    """
    random = torch.Generator().manual_seed(0)
    for layer in _one_of_each(layers):
        x = torch.randn(1, most, layer.in_features, generator=random).to(device, dtype)
        whole = layer(x)
        for size in (size for size in JOINED if size < most):
            last = slice(most - size, most)
            if not (
                torch.equal(layer(x[:, :size]), whole[:, :size]) and torch.equal(layer(x[:, last]), whole[:, last])
            ):
                return False
    return True


def _one_of_each(layers: Iterable[Any]) -> list[Any]:
    """One layer of each kind and shape."""
    return list({(type(layer), layer.in_features, layer.out_features): layer for layer in layers}.values())
