"""Which rows each optimizer step sees. Imports no torch: whoever estimates a run counts its steps with this, too."""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.trainer.config import TrainingConfig


def fill(lengths: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Cut consecutive rows into groups of at most `max_tokens` tokens; a longer row makes a group of its own."""
    starts = _starts(lengths, max_tokens)
    return [np.arange(start, end) for start, end in zip(starts, [*starts[1:], len(lengths)], strict=True)]


def _starts(lengths: NDArray[np.int64], max_tokens: int) -> list[int]:
    """The first row of each of those groups."""
    ends: list[int] = np.cumsum(lengths).tolist()  # looked up by the thousand, where a list is faster than an array
    starts, start, used = [], 0, 0
    while start < len(ends):
        starts.append(start)
        start = max(bisect_right(ends, used + max_tokens, lo=start), start + 1)
        used = ends[start - 1]
    return starts


class Sampler:
    """The order of rows, as a function of the seed and the step: a resumed run needs the step and nothing else."""

    def __init__(self, lengths: NDArray[np.int64], config: TrainingConfig, max_row_tokens: int) -> None:
        """Lay out a run over rows of these lengths (at least one), each of at most `max_row_tokens` tokens."""
        self._lengths = lengths
        self._config = config
        self._max_tokens = config.batch_size * max_row_tokens
        self._epoch_plan = lru_cache(maxsize=1)(self._plan)
        self._groups = lru_cache(maxsize=1)(self._grouped)
        self._first_steps = [0]  # of each epoch, and the end
        self._whole_epochs: list[int] = []  # the steps that each has, or would have
        whole_epochs = int(config.epochs)
        limit = config.max_steps or math.inf
        while len(self._first_steps) <= whole_epochs and self._first_steps[-1] < limit:
            self._first_steps.append(self._first_steps[-1] + self._count_steps(len(self._first_steps) - 1))
        if (rest := config.epochs - whole_epochs) > 0 and self._first_steps[-1] < limit:
            steps = math.ceil(rest * self._count_steps(whole_epochs))
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
            micro_batches = self.shares(micro_batches, processes)[process]
        if halvings == 0:
            return micro_batches
        return [part for rows in micro_batches for part in self._cut(rows, 2**halvings)]

    def shares(self, micro_batches: list[NDArray[np.int64]], processes: int) -> list[list[NDArray[np.int64]]]:
        """Return what each of several processes has of a step's micro-batches."""
        parts = [part for rows in micro_batches for part in self._cut(rows, processes)]
        return [parts[process::processes] for process in range(processes)]

    @property
    def steps_of_first_epoch(self) -> int:
        """Those of them that the run makes."""
        return min(self._first_steps[1], self.total_steps)

    def epochs_of(self, steps: int) -> float:
        """How many passes over the rows so many steps are."""
        epoch = min(int(np.searchsorted(self._first_steps, steps, side="right")), len(self._first_steps) - 1) - 1
        return epoch + (steps - self._first_steps[epoch]) / self._whole_epochs[epoch]

    def micro_batch_sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of each micro-batch of the first epoch its tokens, and the sum of its rows' squared lengths."""
        order, starts = self._groups(0)
        lengths = self._lengths[order]
        return np.add.reduceat(lengths, starts), np.add.reduceat(lengths * lengths, starts)

    def _cut(self, rows: NDArray[np.int64], parts: int) -> list[NDArray[np.int64]]:
        lengths = self._lengths[rows]
        return [rows[group] for group in fill(lengths, math.ceil(lengths.sum() / parts))]

    def _plan(self, epoch: int) -> list[list[NDArray[np.int64]]]:
        order, starts = self._groups(epoch)
        micro_batches = np.split(order, starts[1:])
        per_step = self._config.gradient_accumulation
        return [micro_batches[start : start + per_step] for start in range(0, len(micro_batches), per_step)]

    def _grouped(self, epoch: int) -> tuple[NDArray[np.int64], list[int]]:
        """Its rows in their order, and where in it each micro-batch begins."""
        order = self._order(epoch)
        return order, self._group_starts(order)

    def _count_steps(self, epoch: int) -> int:
        """As many as its plan has, or would have without an end on the way."""
        if self._config.packing:
            micro_batches = len(self._group_starts(self._order(epoch)))
        else:
            micro_batches = math.ceil(len(self._lengths) / self._config.batch_size)
        self._whole_epochs.append(math.ceil(micro_batches / self._config.gradient_accumulation))
        return self._whole_epochs[-1]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._config.seed, epoch]).permutation(len(self._lengths))

    def _group_starts(self, order: NDArray[np.int64]) -> list[int]:
        if self._config.packing:
            return _starts(self._lengths[order], self._max_tokens)
        return list(range(0, len(order), self._config.batch_size))
