"""Attention over keys and values in pages: a batch in which each sequence has a length of its own.

What is computed for a sequence depends on it alone, down to the last bit: it is grouped with others whose length is
rounded up to the same number, its own, and what lies beyond its end is zeros, and masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from inference.engine.pages import NOTHING, NOWHERE, Pages

NAME = "engine_pages"
LEAST_LENGTH = 64


class Attention(Protocol):
    """What one forward pass attends to."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """query is [rows, heads, tokens, width], key and value have fewer heads; returns [rows, tokens, heads, width]."""
        ...


def rounded(length: int) -> int:
    """The number of keys that a sequence of this length is computed with."""
    return max(LEAST_LENGTH, 1 << (length - 1).bit_length())


class WholeRow:
    """One row from its beginning to its end, and nothing is kept of it."""

    def __init__(self, tokens: int, window: int | None, grouped: int, dtype: torch.dtype, device: torch.device) -> None:
        self._grouped = grouped
        self._mask: torch.Tensor | None = None  # a causal one is no tensor: that of a long row would be large
        if window is not None and tokens > window:
            positions = torch.arange(tokens, device=device)
            self._mask = _mask(positions, positions, window, dtype)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        key, value = (each.repeat_interleave(self._grouped, dim=1) for each in (key, value))
        is_causal = self._mask is None
        mixed = scaled_dot_product_attention(query, key, value, self._mask, is_causal=is_causal, scale=scaling)
        return mixed.transpose(1, 2)


class Reading:
    """A part of one prompt, beginning at token `start` of the sequence, behind what is in the pages already."""

    def __init__(
        self,
        pages: Pages,
        places: torch.Tensor,
        start: int,
        window: int | None,
        grouped: int,
        dtype: torch.dtype,
    ) -> None:
        """`places` are those of the sequence's tokens up to the end of the part, [tokens]."""
        positions = torch.arange(len(places), device=places.device)
        self._pages = pages
        self._new = places[start:]
        self._seen = places.unsqueeze(0) if start else None
        self._mask = _mask(positions[start:], positions, window, dtype).repeat(grouped, 1)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        self._pages.write(layer, self._new, key[0].transpose(0, 1), value[0].transpose(0, 1))
        if self._seen is not None:
            key, value = self._pages.read(layer, self._seen)
        return _attention(query, key, value, self._mask, scaling)


class ReadingMany:
    """Parts of several prompts, one behind the other in the only row."""

    def __init__(self, readings: Sequence[tuple[int, Reading]]) -> None:
        """Of each the number of its tokens."""
        self._readings: list[tuple[slice, Reading]] = []
        first = 0
        for tokens, reading in readings:
            self._readings.append((slice(first, first + tokens), reading))
            first += tokens

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        parts = [
            reading.attend(layer, query[:, :, span], key[:, :, span], value[:, :, span], scaling)
            for span, reading in self._readings
        ]
        return torch.cat(parts, dim=1)


class Decoding:
    """The newest token of each sequence. Made for a batch, and used until others are in it or `lengths` is outgrown."""

    def __init__(
        self,
        pages: Pages,
        places: Sequence[torch.Tensor],
        lengths: Sequence[int],
        rows: int,
        window: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """`places` and the rounded `lengths` of each sequence; `rows` are those of the batch, of which some may be empty."""
        self._pages = pages
        self._dtype = dtype
        self._window = window
        self._rows = rows
        self._places = places
        self._groups = [
            _Group([row for row, one in enumerate(lengths) if one == length], length, places, device)
            for length in sorted(set(lengths))
        ]
        self._new = torch.full((rows,), NOWHERE, device=device)

    def at(self, positions: Sequence[int]) -> None:
        """The pass that comes is for the tokens at these positions of their sequences."""
        new = [int(places[position]) for places, position in zip(self._places, positions, strict=True)]
        self._new[: len(new)] = torch.tensor(new)
        for group in self._groups:
            group.at(positions, self._window, self._dtype)

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        self._pages.write(layer, self._new, key.squeeze(2), value.squeeze(2))
        rows, heads, tokens, width = query.shape
        mixed = query.new_zeros(rows, tokens, heads, width)
        for group in self._groups:
            keys, values = self._pages.read(layer, group.seen)
            mixed[group.rows] = _attention(query[group.rows], keys, values, group.mask, scaling)
        return mixed


class _Group:
    """Rows whose length is rounded up to the same number."""

    def __init__(self, rows: list[int], length: int, places: Sequence[torch.Tensor], device: torch.device) -> None:
        in_a_row = rows == list(range(rows[0], rows[0] + len(rows)))
        self.rows = slice(rows[0], rows[0] + len(rows)) if in_a_row else torch.tensor(rows, device=device)
        self._numbers = rows
        self._steps = torch.arange(length, device=device)
        self._table = torch.full((len(rows), length), NOTHING, device=device)
        for number, row in enumerate(rows):
            theirs = places[row][:length]
            self._table[number, : len(theirs)] = theirs.to(device)
        self.seen = self._table
        self.mask = torch.empty(0)

    def at(self, positions: Sequence[int], window: int | None, dtype: torch.dtype) -> None:
        now = torch.tensor([positions[row] for row in self._numbers], device=self._steps.device)
        mask = _mask(now, self._steps, window, dtype)
        self.seen = self._table.masked_fill(mask < 0, NOTHING)
        self.mask = mask[:, None, None, :]


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    attention: Attention,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers' layers call; `attention` was given to the model's forward."""
    return attention.attend(module.layer_idx, query, key, value, scaling), None


AttentionInterface.register(NAME, attend)


def _mask(queries: torch.Tensor, keys: torch.Tensor, window: int | None, dtype: torch.dtype) -> torch.Tensor:
    """What is added to the scores of tokens at positions `queries`: 0 where they may look, else minus infinity."""
    hidden = keys > queries[:, None]
    if window is not None:
        hidden |= keys <= queries[:, None] - window
    return torch.zeros(hidden.shape, dtype=dtype, device=keys.device).masked_fill_(hidden, -torch.inf)


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Heads that share keys are rows of one product: nothing is copied for them."""
    rows, heads, tokens, width = query.shape
    folded = query.reshape(rows, key.shape[1], heads // key.shape[1] * tokens, width)
    mixed = scaled_dot_product_attention(folded, key, value, attn_mask=mask, scale=scaling)
    return mixed.reshape(rows, heads, tokens, width).transpose(1, 2)
