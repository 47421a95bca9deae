"""Keys and values of all sequences under way, in memory that is set aside once and given out in pages."""

from __future__ import annotations

from dataclasses import dataclass

import torch

PAGE_TOKENS = 16
NOTHING = 0
"""The place of keys and values that are zeros and stay so: it stands for tokens that a sequence does not have."""
NOWHERE = 1
"""The place that rows without a sequence write to, and nobody reads."""


@dataclass(frozen=True)
class Lease:
    """Room for one sequence's tokens, from the first to the last that it may come to."""

    pages: tuple[int, ...]
    places: torch.Tensor
    """Where token 0, 1, .. of the sequence is kept: [tokens], on the CPU."""


class Pages:
    """Keys and values of each layer, [places, heads, width]; a sequence's places need not be neighbours."""

    def __init__(
        self, layers: int, heads: int, width: int, tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        count = -(-tokens // PAGE_TOKENS)
        shape = ((count + 1) * PAGE_TOKENS, heads, width)  # of page 0 there are the two places that are nobody's
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.tokens = count * PAGE_TOKENS
        self._free = list(range(count, 0, -1))

    @property
    def free_tokens(self) -> int:
        return len(self._free) * PAGE_TOKENS

    @staticmethod
    def whole(tokens: int) -> int:
        """The tokens of the pages that a lease for so many takes."""
        return -(-tokens // PAGE_TOKENS) * PAGE_TOKENS

    def lease(self, tokens: int) -> Lease | None:
        """Room for a whole sequence, so that none has to give way half-way; None while there is not enough."""
        count = -(-tokens // PAGE_TOKENS)
        if count > len(self._free):
            return None
        pages = tuple(self._free.pop() for _ in range(count))
        first = torch.tensor(pages).unsqueeze(1) * PAGE_TOKENS
        return Lease(pages, (first + torch.arange(PAGE_TOKENS)).flatten()[:tokens])

    def release(self, lease: Lease) -> None:
        self._free.extend(reversed(lease.pages))

    def write(self, layer: int, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """`places` is [tokens], the others are [tokens, heads, width]."""
        self.keys[layer].index_copy_(0, places, keys)
        self.values[layer].index_copy_(0, places, values)

    def read(self, layer: int, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values [rows, heads, tokens, width] at `places` [rows, tokens]."""
        flat = places.flatten()
        shape = (*places.shape, *self.keys[layer].shape[1:])
        keys = self.keys[layer].index_select(0, flat).view(shape).transpose(1, 2)
        values = self.values[layer].index_select(0, flat).view(shape).transpose(1, 2)
        return keys, values
