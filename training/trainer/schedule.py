"""The learning rate as a function of the step, as in transformers: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from training.trainer.config import Scheduler, TrainingConfig


def learning_rate(step: int, total_steps: int, config: TrainingConfig) -> float:
    """Return the rate of a step, which counts from 0: a linear rise from zero, then the scheduler's way down."""
    warmup_steps = math.ceil(config.warmup_ratio * total_steps)
    if step < warmup_steps:
        return config.learning_rate * step / warmup_steps
    if config.scheduler is Scheduler.CONSTANT:
        return config.learning_rate
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    if config.scheduler is Scheduler.LINEAR:
        return config.learning_rate * (1 - done)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
