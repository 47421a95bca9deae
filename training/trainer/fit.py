"""The training loop: optimizer steps, validations, and checkpoints, until the last step or SIGTERM."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.child import Attempt, ChildError, Interrupted
from training.trainer import checkpoint
from training.trainer.batches import Sampler, collate, fill
from training.trainer.encoding import Examples
from training.trainer.lora import LoraLinear
from training.trainer.loss import loss_sum
from training.trainer.orders import Orders
from training.trainer.schedule import learning_rate
from training.trainer.state import Progress, save_state

VALIDATION_TOKENS = 16_384
"""A validation reads about this many tokens of its split: evenly spaced rows, the same each time."""
EVALUATION_BATCH_TOKENS = 4_096
LOG_EVERY_S = 0.2
"""StepLogged events are at least this far apart; the first and the last are always written."""


@dataclass
class Run:
    """Everything that the loop works on."""

    attempt: Attempt
    orders: Orders
    model: Any
    layers: Mapping[str, LoraLinear]
    optimizer: torch.optim.Optimizer
    sampler: Sampler
    examples: Mapping[str, Examples]
    """The rows of "train", "validation", and "test"."""
    progress: Progress
    device: torch.device

    @property
    def checkpoints(self) -> Path:
        return self.attempt.folder / "checkpoints"

    def is_due(self, every_steps: int | None, default_times: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens after the present step."""
        total = self.sampler.total_steps
        every = every_steps or math.ceil(total / default_times)
        return self.progress.step > 0 and (self.progress.step % every == 0 or self.progress.step >= total)


def fit(run: Run) -> None:
    """Train to the last step, from wherever the run's progress stands.

    On SIGTERM it saves a checkpoint of the last finished step and raises Interrupted. A loss or gradient that is not
    finite raises ChildError NUMERICS, before it reaches the weights.
    """
    config, progress, start = run.orders.config, run.progress, run.progress.step
    logged = _StepLog(run)
    try:
        while True:
            if run.is_due(config.eval_every_steps, 4) and progress.evaluated_step < progress.step:
                validate(run)
            if run.is_due(config.checkpoint_every_steps, 10) and progress.step > start:
                save_checkpoint(run)
            if progress.step >= run.sampler.total_steps:  # more where a checkpoint was made with a longer horizon
                return
            logged.write(*train_step(run))
    except Interrupted:
        if progress.step > start:
            save_checkpoint(run)
        raise


def train_step(run: Run) -> tuple[float, float, float]:
    """Make one optimizer step; return its loss (nats a counted token), learning rate, and gradient norm (unclipped)."""
    started = time.perf_counter()
    config, step = run.orders.config, run.progress.step
    # Every step has random numbers of its own, so a resumed run draws the same ones without having saved any.
    torch.manual_seed((config.seed << 32) + step + 1)
    batches = [collate(run.examples["train"], rows.tolist(), run.device) for rows in run.sampler.rows(step)]
    counted = sum(len(batch.targets) for batch in batches)
    run.model.train()
    run.optimizer.zero_grad(set_to_none=True)
    loss = 0.0
    for batch in batches:
        run.attempt.check_stop()
        # Over the whole step's tokens, not the micro-batch's: each token weighs the same, however they are grouped.
        part = loss_sum(run.model, batch) / counted
        part.backward()
        loss += part.item()
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    grad_norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm).item()
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise ChildError(
            "NUMERICS",
            f"The loss or its gradient was not finite at step {step + 1}. A lower learning rate usually helps.",
        )
    rate = learning_rate(step, run.sampler.total_steps, config)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    run.optimizer.step()
    run.progress.step += 1
    run.progress.tokens += sum(batch.ids.shape[1] for batch in batches)
    run.progress.step_seconds += time.perf_counter() - started
    run.progress.last_loss = loss
    if run.progress.first_loss is None:
        run.progress.first_loss = loss
    return loss, rate, grad_norm


def validate(run: Run) -> None:
    """Measure the validation loss and record it; without validation rows do nothing."""
    validation = run.examples["validation"]
    if len(validation) == 0:
        return
    rows = evenly_spaced(len(validation), max(1, int(VALIDATION_TOKENS / validation.lengths.mean())))
    loss = mean_loss(run, validation, rows)
    run.progress.eval_loss, run.progress.evaluated_step = loss, run.progress.step
    run.attempt.events.write("Evaluated", step=run.progress.step, eval_loss=loss)


def mean_loss(run: Run, examples: Examples, rows: NDArray[np.int64]) -> float:
    """Return the mean loss (nats) of the counted tokens of some rows, without dropout.

    Raises ChildError NUMERICS where it is not finite, and Interrupted within a batch of SIGTERM.
    """
    run.model.eval()
    total, counted = 0.0, 0
    with torch.no_grad():
        for group in fill(examples.lengths[rows], EVALUATION_BATCH_TOKENS):
            run.attempt.check_stop()
            batch = collate(examples, rows[group].tolist(), run.device)
            total += loss_sum(run.model, batch).item()
            counted += len(batch.targets)
    if not math.isfinite(total):
        raise ChildError(
            "NUMERICS",
            f"The loss on held-out rows was not finite after step {run.progress.step}. "
            "A lower learning rate usually helps.",
        )
    return total / counted


def save_checkpoint(run: Run) -> None:
    """Leave a checkpoint of the present step, and remove the oldest beyond keep_checkpoints."""
    saved = checkpoint.save(
        run.checkpoints,
        run.progress.step,
        lambda folder: save_state(folder, run.layers, run.optimizer, run.progress, run.orders),
    )
    checkpoint.rotate(run.checkpoints, run.orders.config.keep_checkpoints)
    run.attempt.events.write("CheckpointSaved", step=saved.step, size_bytes=saved.size_bytes, sha256=saved.sha256)


def evenly_spaced(count: int, wanted: int) -> NDArray[np.int64]:
    """Return `wanted` of the numbers below `count` (all, where there are fewer), evenly spaced and in order."""
    wanted = min(count, wanted)
    return np.arange(wanted) * count // wanted


class _StepLog:
    """Writes StepLogged events, not more often than anybody can look."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._written_at = -math.inf
        self._tokens, self._seconds = run.progress.tokens, run.progress.step_seconds

    def write(self, loss: float, rate: float, grad_norm: float) -> None:
        progress, total = self._run.progress, self._run.sampler.total_steps
        now = time.monotonic()
        if now - self._written_at < LOG_EVERY_S and progress.step != total:
            return
        seconds = progress.step_seconds - self._seconds
        self._run.attempt.events.write(
            "StepLogged",
            step=progress.step,
            total_steps=total,
            loss=loss,
            learning_rate=rate,
            grad_norm=grad_norm,
            tokens_per_second=(progress.tokens - self._tokens) / seconds,
            tokens=progress.tokens,
        )
        self._written_at, self._tokens, self._seconds = now, progress.tokens, progress.step_seconds
