"""The training loop: optimizer steps, validations, and checkpoints, until the last step or SIGTERM."""

from __future__ import annotations

import math
import time
from contextlib import suppress

import torch

from common.child import ChildError, DiskFull, Interrupted, room_for
from training.trainer import checkpoint
from training.trainer.best import tensors_beside
from training.trainer.evaluation import validate
from training.trainer.memory import used_bytes
from training.trainer.state import save_state, tensors_of
from training.trainer.step import Gradient, Run, train_step

LOG_EVERY_S = 0.2
LOG_EVERY_SHARE = 0.001  # of the time since the start: a day leaves some 7,000 events, and a month 10,000
"""StepLogged events are at least so far apart; the first and the last are always written."""


def fit(run: Run) -> None:
    """Train to the last step, or until patience runs out (best.py), from wherever the run's progress stands.

    On SIGTERM it saves a checkpoint of the last finished step and raises Interrupted. Raises ChildError NUMERICS,
    OUT_OF_MEMORY, and DISK_FULL, each with the newest checkpoint whole and its weights finite.
    """
    config, progress, start = run.orders.config, run.progress, run.progress.step
    logged = _StepLog(run)
    try:
        while True:
            if run.is_due(config.eval_every_steps, 4) and progress.evaluated_step < progress.step:
                validate(run)
            # More steps than there are where a checkpoint was made with a longer horizon.
            is_over = progress.stopped_of is not None or progress.step >= run.sampler.total_steps
            if is_over:
                logged.write_last()
            if (is_over or run.is_due(config.checkpoint_every_steps, 10)) and progress.step > start:
                save_checkpoint(run)
            if is_over:
                break
            logged.write(*train_step(run))
    except Interrupted:
        if progress.step > start:
            with suppress(DiskFull):  # whoever goes on from the checkpoint before will tell
                save_checkpoint(run)
        raise
    require_finite_state(run)  # a checkpoint that was given may have been at the last step already


def follow(run: Run) -> None:
    """Share in each step that the first process makes, and in nothing else; it ends this process when it is done."""
    while run.progress.step < run.sampler.total_steps:
        train_step(run)


def save_checkpoint(run: Run) -> None:
    """Leave a checkpoint of the present step, and remove the oldest beyond keep_checkpoints.

    Raises ChildError NUMERICS rather than save what is not finite, and DiskFull.
    """
    require_finite_state(run)
    step = run.progress.step
    weights, moments = tensors_of(run.layers, run.optimizer)
    best = tensors_beside(run)
    size_bytes = sum(tensor.nbytes for tensor in (*weights.values(), *moments.values(), *best.values()))
    with room_for(f"the checkpoint of step {step}", size_bytes, run.attempt.folder):
        saved = checkpoint.save(
            run.checkpoints,
            step,
            lambda folder: save_state(folder, run.layers, run.optimizer, run.progress, run.orders, best),
        )
    checkpoint.rotate(run.checkpoints, run.orders.config.keep_checkpoints)
    run.attempt.events.write("CheckpointSaved", step=saved.step, size_bytes=saved.size_bytes, sha256=saved.sha256)


def require_finite_state(run: Run) -> None:
    """Raise ChildError NUMERICS where a weight of the adapter, or a moment of its optimizer, is not finite."""
    weights, moments = tensors_of(run.layers, run.optimizer)
    for name, tensor in (weights | moments).items():
        if not torch.isfinite(tensor).all():
            raise ChildError(
                "NUMERICS",
                f"{name} was not finite after step {run.progress.step}. A lower learning rate usually helps.",
            )


def log_every_s(running_s: float) -> float:
    return max(LOG_EVERY_S, LOG_EVERY_SHARE * running_s)


class _StepLog:
    """Writes StepLogged events, not more often than anybody can look."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begun_with = run.progress.step
        self._begun_at, self._written_at = time.monotonic(), -math.inf
        self._tokens, self._seconds = run.progress.tokens, run.progress.step_seconds
        self._unwritten: tuple[Gradient, float] | None = None

    def write(self, gradient: Gradient, rate: float) -> None:
        """Write the step that was just made, if it is time, or keep it for write_last."""
        now = time.monotonic()
        is_last = self._run.progress.step >= self._run.sampler.total_steps
        if now - self._written_at < log_every_s(now - self._begun_at) and not is_last:
            self._unwritten = gradient, rate
            return
        self._write(gradient, rate)
        self._written_at, self._unwritten = now, None

    def write_last(self) -> None:
        """Write the last step, unless that has been done."""
        if self._unwritten is not None:
            self._write(*self._unwritten)

    def _write(self, gradient: Gradient, rate: float) -> None:
        progress, total = self._run.progress, self._run.sampler.total_steps
        seconds = progress.step_seconds - self._seconds
        self._run.attempt.events.write(
            "StepLogged",
            step=progress.step,
            total_steps=total,
            loss=gradient.loss,
            learning_rate=rate,
            grad_norm=gradient.norm,
            eta_seconds=self._eta_s(),
            tokens_per_second=(progress.tokens - self._tokens) / seconds,
            tokens=progress.tokens,
            memory_bytes=used_bytes(self._run.device),
        )
        self._tokens, self._seconds = progress.tokens, progress.step_seconds

    def _eta_s(self) -> float:
        """Until the last step, validations and checkpoints on the way included, if the rest goes as it went so far."""
        step, total = self._run.progress.step, self._run.sampler.total_steps
        return (time.monotonic() - self._begun_at) / (step - self._begun_with) * max(0, total - step)
