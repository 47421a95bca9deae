"""Causal attention within each of several documents that lie end to end, for transformers' models.

Each document gets a kernel call of its own. That costs the sum of the squared lengths where a block-diagonal mask
costs the square of the sum, needs no mask in memory, and no document can reach into another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

DOCUMENTS = "documents"
"""The name of this attention in a model's config."""


def use_document_attention(model: Any) -> None:
    """Make a transformers model attend within documents: each forward then needs `document_lengths`."""
    from transformers import AttentionInterface

    # Registered without a mask function, so that transformers builds no mask.
    AttentionInterface.register(DOCUMENTS, attend)
    model.config._attn_implementation = DOCUMENTS


@contextmanager
def one_document(model: Any) -> Iterator[None]:
    """Within this the model takes a single document, with a cache of what it has read, as transformers' own do."""
    model.config._attn_implementation = "sdpa"
    try:
        yield
    finally:
        model.config._attn_implementation = DOCUMENTS


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    document_lengths: list[int],
    scaling: float,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Take (1, heads, T, width) queries and (1, key heads, T, width) keys and values; give (1, T, heads, width).

    Scores are multiplied by `scaling`. With a sliding window a token sees itself and the window - 1 tokens before it.
    """
    groups = query.shape[1] // key.shape[1]
    outputs = []
    # split, not slices: the backward of a slice fills a whole tensor with zeros, once for each document.
    parts = zip(*(tensor.split(document_lengths, dim=2) for tensor in (query, key, value)), strict=True)
    for q, k, v in parts:
        length = q.shape[2]
        windowed = sliding_window is not None and length > sliding_window
        mask = window_mask(length, sliding_window, q.device) if windowed and sliding_window else None
        outputs.append(
            scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=mask,
                is_causal=mask is None,
                dropout_p=dropout,
                scale=scaling,
                enable_gqa=groups > 1,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Return a (length, length) mask, true where the column is one of the `window` tokens up to the row's own."""
    seen = torch.ones(length, length, dtype=torch.bool, device=device)
    return seen.tril().triu(1 - window)
