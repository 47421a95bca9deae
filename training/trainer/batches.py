"""How a micro-batch looks; which rows it has is sampler.py's.

A micro-batch is one row of tokens: its documents one after another, without padding. Positions restart at each document
and attention stays within it (attention.py), so a document's loss does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from training.trainer.encoding import Examples
from training.trainer.sampler import Sampler, fill

__all__ = ["Batch", "Sampler", "collate", "fill"]


@dataclass(frozen=True)
class Batch:
    """Documents laid end to end, T tokens in all, S of them predicted and counted by the loss."""

    ids: torch.Tensor
    """(1, T) token ids."""
    positions: torch.Tensor
    """(1, T) positions, from 0 in each document."""
    lengths: list[int]
    """Tokens of each document."""
    predicting: torch.Tensor
    """(S,) the places in 0..T-1 whose output predicts a counted token: the place before it."""
    targets: torch.Tensor
    """(S,) the counted tokens."""


def collate(examples: Examples, rows: Sequence[int], device: torch.device) -> Batch:
    """Lay the rows end to end, in the order given."""
    parts = [examples.row(row) for row in rows]
    ids = torch.from_numpy(np.concatenate([tokens for tokens, _ in parts]).astype(np.int64))
    counted = torch.from_numpy(np.flatnonzero(np.concatenate([supervised for _, supervised in parts])))
    lengths = [len(tokens) for tokens, _ in parts]
    positions = torch.cat([torch.arange(length) for length in lengths])
    return Batch(
        ids=ids[None].to(device),
        positions=positions[None].to(device),
        lengths=lengths,
        predicting=(counted - 1).to(device),  # a document's first token is never counted
        targets=ids[counted].to(device),
    )
