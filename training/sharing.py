"""How several processes share the steps of a run: as even as rows allow, and all wait for the one that has most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.trainer.costs import Share
from training.trainer.sampler import Sampler

MICRO_BATCHES = 64
"""No more are looked at: of so many steps, evenly spaced, or, where one has more than that, the first of it."""


def busiest(sampler: Sampler, lengths: NDArray[np.int64], processes: int, gradient_accumulation: int) -> Share:
    """The share of the process that has most tokens of a step, on average over steps of the first epoch."""
    steps, looked_at = sampler.steps_of_first_epoch, max(1, MICRO_BATCHES // gradient_accumulation)
    done, whole = np.zeros(3), np.zeros(3)
    for number in range(min(steps, looked_at)):
        micro_batches = sampler.rows(number * steps // min(steps, looked_at))[:MICRO_BATCHES]
        shares = [_sums(lengths, each) for each in sampler.shares(micro_batches, processes) if each]
        done += max(shares, key=lambda sums: float(sums[0]))
        whole += _sums(lengths, micro_batches)
    return Share(*(done / whole).tolist())


def _sums(lengths: NDArray[np.int64], micro_batches: list[NDArray[np.int64]]) -> NDArray[np.float64]:
    """Tokens, squared lengths, and how many micro-batches those are."""
    of_rows = lengths[np.concatenate(micro_batches)]
    return np.array([of_rows.sum(), (of_rows * of_rows).sum(), len(micro_batches)], np.float64)
