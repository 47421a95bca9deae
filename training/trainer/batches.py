"""Which rows each optimizer step sees, and how a micro-batch looks.

A micro-batch is one row of tokens: its documents one after another, without padding. Positions restart at each document
and attention stays within it (attention.py), so a document's loss does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from training.trainer.config import TrainingConfig
from training.trainer.encoding import Examples


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


def fill(lengths: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Cut consecutive rows into groups of at most `max_tokens` tokens; a longer row makes a group of its own."""
    ends = np.cumsum(lengths)
    groups, start = [], 0
    while start < len(lengths):
        used = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, used + max_tokens, side="right")), start + 1)
        groups.append(np.arange(start, end))
        start = end
    return groups


class Sampler:
    """The order of rows, as a function of the seed and the step: a resumed run needs the step and nothing else."""

    def __init__(self, lengths: NDArray[np.int64], config: TrainingConfig, max_row_tokens: int) -> None:
        """Lay out a run over rows of these lengths (at least one), each of at most `max_row_tokens` tokens."""
        self._lengths = lengths
        self._config = config
        self._max_tokens = config.batch_size * max_row_tokens
        self._epoch_plan = lru_cache(maxsize=1)(self._plan)
        self._first_steps = [0]  # of each epoch, and the end
        whole_epochs = int(config.epochs)
        limit = config.max_steps or math.inf
        while len(self._first_steps) <= whole_epochs and self._first_steps[-1] < limit:
            self._first_steps.append(self._first_steps[-1] + len(self._epoch_plan(len(self._first_steps) - 1)))
        if (rest := config.epochs - whole_epochs) > 0 and self._first_steps[-1] < limit:
            steps = math.ceil(rest * len(self._epoch_plan(whole_epochs)))
            self._first_steps.append(self._first_steps[-1] + steps)
        self.total_steps = int(min(self._first_steps[-1], limit))

    def rows(self, step: int, halvings: int = 0, process: int = 0, processes: int = 1) -> list[NDArray[np.int64]]:
        """Return the rows of each micro-batch of a step, which counts from 0.

        Of several processes each gets its share of every micro-batch, by tokens and as far as rows allow: together they
        have the step's rows, once each, however often each of them has halved. Each halving cuts the micro-batches in
        two in the same way: a step has the same rows, in the same order, in twice as many micro-batches.
        """
        epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        micro_batches = self._epoch_plan(epoch)[step - self._first_steps[epoch]]
        if processes > 1:
            micro_batches = [part for rows in micro_batches for part in self._cut(rows, processes)][process::processes]
        if halvings == 0:
            return micro_batches
        return [part for rows in micro_batches for part in self._cut(rows, 2**halvings)]

    def _cut(self, rows: NDArray[np.int64], parts: int) -> list[NDArray[np.int64]]:
        lengths = self._lengths[rows]
        return [rows[group] for group in fill(lengths, math.ceil(lengths.sum() / parts))]

    def _plan(self, epoch: int) -> list[list[NDArray[np.int64]]]:
        order = np.random.default_rng([self._config.seed, epoch]).permutation(len(self._lengths))
        if self._config.packing:
            groups = fill(self._lengths[order], self._max_tokens)
        else:
            size = self._config.batch_size
            groups = [np.arange(start, min(start + size, len(order))) for start in range(0, len(order), size)]
        micro_batches = [order[group] for group in groups]
        per_step = self._config.gradient_accumulation
        return [micro_batches[start : start + per_step] for start in range(0, len(micro_batches), per_step)]
