"""One optimizer step: made, or skipped where its numbers are not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.child import Attempt, ChildError
from training.trainer.batches import Sampler, collate
from training.trainer.encoding import Examples
from training.trainer.halving import within_memory
from training.trainer.lora import LoraLinear
from training.trainer.loss import loss_sum
from training.trainer.memory import memory_for
from training.trainer.orders import Orders
from training.trainer.schedule import learning_rate
from training.trainer.state import Progress
from training.trainer.team import Team

MAX_SKIPPED_IN_A_ROW = 3
SKIPPED_SHARE = 0.01
"""Of all steps of a run no more than this share is skipped, or three where that is more."""


@dataclass
class Run:
    """Everything that a training run works on."""

    attempt: Attempt
    orders: Orders
    model: Any
    tokenizer: Any
    layers: Mapping[str, LoraLinear]
    optimizer: torch.optim.Optimizer
    sampler: Sampler
    examples: Mapping[str, Examples]
    """The rows of "train", "validation", and "test"."""
    progress: Progress
    device: torch.device
    team: Team
    best: dict[str, torch.Tensor] | None = None
    """The adapter of the best validated step, where the run is to leave that one."""

    @property
    def checkpoints(self) -> Path:
        return self.attempt.folder / "checkpoints"

    def is_due(self, every_steps: int | None, default_times: int) -> bool:
        """Whether something that happens every so many steps, and at the end, happens after the present step."""
        total = self.sampler.total_steps
        every = every_steps or math.ceil(total / default_times)
        return self.progress.step > 0 and (self.progress.step % every == 0 or self.progress.step >= total)


@dataclass(frozen=True)
class Gradient:
    """What the micro-batches of one step left in the parameters' .grad, clipped."""

    loss: float
    """Nats a counted token."""
    norm: float
    """L2, before the clipping."""
    tokens: int

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.norm)


def train_step(run: Run) -> tuple[Gradient, float]:
    """Make one optimizer step; return its gradient and its learning rate.

    Where the loss or the gradient is not finite, the step is skipped: weights and optimizer stay as they are, the
    schedule and the order of rows go on. Raises ChildError NUMERICS where that happens too often, ChildError
    OUT_OF_MEMORY, and Interrupted on SIGTERM, before anything has changed.
    """
    started, progress = time.perf_counter(), run.progress
    rate = learning_rate(progress.step, run.sampler.total_steps, run.orders.config)
    with run.attempt.interruptible():
        gradient = within_memory(run, f"step {progress.step + 1}", lambda: compute_gradient(run))
    if gradient.is_finite:
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        run.optimizer.step()
        progress.tokens += gradient.tokens
        progress.last_loss = gradient.loss
        if progress.first_loss is None:
            progress.first_loss = gradient.loss
        progress.skipped_in_a_row = 0
    else:
        _skip(run, gradient)
    progress.step += 1
    progress.step_seconds += time.perf_counter() - started
    return gradient, rate


def compute_gradient(run: Run) -> Gradient:
    """Run this process's share of the step's micro-batches forward and backward, and add up all shares.

    Raises OutOfMemory, and what Team.summed does.
    """
    config, step, train, team = run.orders.config, run.progress.step, run.examples["train"], run.team
    # Every step has random numbers of its own, so a resumed run draws the same ones without having saved any.
    torch.manual_seed((config.seed << 32) + step + 1 + (team.index << 24))
    micro_batches = run.sampler.rows(step, run.progress.halvings, team.index, team.count)
    batches = [collate(train, rows.tolist(), run.device) for rows in micro_batches]
    tokens, counted = train.tokens_of(np.concatenate(run.sampler.rows(step)))
    run.model.train()
    run.optimizer.zero_grad(set_to_none=True)
    loss = 0.0
    for batch in batches:
        with memory_for(batch):
            # Over the whole step's tokens, not the micro-batch's or the process's: each weighs the same, however they
            # are grouped.
            part = loss_sum(run.model, batch) / counted
            part.backward()
            loss += part.item()
    parameters = [parameter for group in run.optimizer.param_groups for parameter in group["params"]]
    loss = _summed(run, parameters, loss)
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm).item()
    return Gradient(loss, norm, tokens)


def _summed(run: Run, parameters: list[torch.nn.Parameter], loss: float) -> float:
    """Make each gradient the sum over all processes, and return the sum of their losses, in one exchange."""
    if run.team.count == 1:
        return loss
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([*(gradient.reshape(-1) for gradient in gradients), gradients[0].new_tensor([loss])])
    *totals, total_loss = run.team.summed(flat).split([*(gradient.numel() for gradient in gradients), 1])
    for parameter, total in zip(parameters, totals, strict=True):
        parameter.grad = total.view_as(parameter)
    return float(total_loss.item())


def _skip(run: Run, gradient: Gradient) -> None:
    """Count a step that is not made, or raise ChildError NUMERICS if there were too many of them."""
    progress, total_steps = run.progress, run.sampler.total_steps
    number = progress.step + 1
    what = "loss" if not math.isfinite(gradient.loss) else "gradient"
    at_most = max(MAX_SKIPPED_IN_A_ROW, int(SKIPPED_SHARE * total_steps))
    in_a_row_is_enough = progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW
    if in_a_row_is_enough or progress.skipped_steps >= min(at_most, total_steps - 1):
        raise ChildError(
            "NUMERICS",
            f"The {what} was not finite at step {number}, and {progress.skipped_steps:,} steps had been skipped for that "
            "before. A lower learning rate usually helps.",
        )
    progress.skipped_steps += 1
    progress.skipped_in_a_row += 1
    run.attempt.events.log(f"Step {number} was skipped: its {what} was not finite", level="WARNING")
