"""The loss on rows that were held out of the training."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import torch
from numpy.typing import NDArray

from common.child import ChildError
from training.trainer.batches import collate, fill
from training.trainer.best import note_validation
from training.trainer.encoding import Examples
from training.trainer.halving import within_memory
from training.trainer.loss import loss_sum
from training.trainer.memory import memory_for
from training.trainer.rows import evenly_spaced
from training.trainer.samples import SAMPLES, samples
from training.trainer.step import Run

VALIDATION_TOKENS = 16_384
"""A validation reads about this many tokens of its split: evenly spaced rows, the same each time."""
EVALUATION_BATCH_TOKENS = 4_096


def validate(run: Run) -> None:
    """Measure the validation loss and record it, with samples beside it; without validation rows do nothing."""
    validation = run.examples["validation"]
    if len(validation) == 0:
        return
    rows = evenly_spaced(len(validation), max(1, int(VALIDATION_TOKENS / validation.lengths.mean())))
    loss = mean_loss(run, validation, rows)
    # Before the validation counts: a run that is stopped here makes both again.
    made = samples(run, evenly_spaced(len(validation), SAMPLES).tolist())
    run.progress.eval_loss, run.progress.evaluated_step = loss, run.progress.step
    run.attempt.events.write("Evaluated", step=run.progress.step, eval_loss=loss)
    for sample in made:
        run.attempt.events.write("SampleGenerated", step=run.progress.step, **asdict(sample))
    note_validation(run, loss)


def mean_loss(run: Run, examples: Examples, rows: NDArray[np.int64]) -> float:
    """Return the mean loss (nats) of the counted tokens of some rows, without dropout.

    Raises ChildError NUMERICS where it is not finite, ChildError OUT_OF_MEMORY, and Interrupted on SIGTERM.
    """
    run.model.eval()
    place = f"the evaluation after step {run.progress.step}"
    with run.attempt.interruptible(), torch.no_grad():
        total, counted = within_memory(run, place, lambda: _summed_loss(run, examples, rows))
    if not math.isfinite(total):
        raise ChildError(
            "NUMERICS",
            f"The loss on held-out rows was not finite after step {run.progress.step}. "
            "A lower learning rate usually helps.",
        )
    return total / counted


def _summed_loss(run: Run, examples: Examples, rows: NDArray[np.int64]) -> tuple[float, int]:
    total, counted = 0.0, 0
    for group in fill(examples.lengths[rows], EVALUATION_BATCH_TOKENS >> run.progress.halvings):
        batch = collate(examples, rows[group].tolist(), run.device)
        with memory_for(batch):
            total += loss_sum(run.model, batch).item()
        counted += len(batch.targets)
    return total, counted
