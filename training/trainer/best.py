"""The best validated step of a run: when to end for want of a better one, and how to leave its adapter.

With `early_stopping_patience` the adapter that a run leaves is the one of its best validated step, whether patience ran
out or the last step came. A copy of that adapter is in memory, and in each checkpoint that is not its own: whoever goes
on, in another attempt, run, or place, needs that one checkpoint, and rotation cannot take the best one away.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from training.trainer.adapter import peft_tensors
from training.trainer.state import BEST
from training.trainer.step import Run


def note_validation(run: Run, loss: float) -> None:
    """Remember the present step as the best one if it is, and end the run where too many were not."""
    progress, patience = run.progress, run.orders.config.early_stopping_patience
    if progress.best_eval_loss is None or loss < progress.best_eval_loss:
        progress.best_eval_loss, progress.best_step, progress.validations_since_best = loss, progress.step, 0
        if patience is not None:
            run.best = _copied(run)
        return
    progress.validations_since_best += 1
    total = run.sampler.total_steps
    if patience is not None and progress.validations_since_best >= patience and progress.step < total:
        progress.stopped_of = total
        run.attempt.events.log(
            f"Stopping early after step {progress.step:,} of {total:,}: {_validations(patience)} in a row found no "
            f"loss below the {progress.best_eval_loss:.4f} of step {progress.best_step:,}"
        )


def tensors_beside(run: Run) -> dict[str, torch.Tensor]:
    """Return the best step's adapter where a checkpoint of the present step would not have it anyway."""
    return run.best if run.best is not None and run.progress.best_step != run.progress.step else {}


def restore(run: Run, folder: Path) -> None:
    """Take up the best step's adapter from the checkpoint that the run's weights and progress have just been read from.

    A run whose patience ran out goes on, with new patience, where it is given more steps than it had then. Without a
    copy (the run had no patience before) the search for the best step begins here.
    """
    progress, patience = run.progress, run.orders.config.early_stopping_patience
    if progress.stopped_of != run.sampler.total_steps:
        progress.stopped_of = None
        if patience is not None and progress.validations_since_best >= patience:
            progress.validations_since_best = 0
    if patience is None or progress.best_eval_loss is None:
        return
    if progress.best_step == progress.step:
        run.best = _copied(run)
    elif (folder / BEST).exists():
        run.best = load_file(folder / BEST)
    else:
        progress.best_eval_loss, progress.best_step, progress.validations_since_best = None, 0, 0


def put_back(run: Run) -> None:
    """Make the adapter the best step's where it is not, and say so; without a copy of that leave it as it is."""
    progress = run.progress
    if run.best is None or progress.best_step == progress.step:
        return
    for name, tensor in peft_tensors(run.layers).items():
        tensor.data.copy_(run.best[name])
    last = progress.eval_loss
    progress.eval_loss, progress.evaluated_step = progress.best_eval_loss, progress.best_step
    run.attempt.events.log(
        f"The adapter is that of step {progress.best_step:,}, whose validation loss was the best "
        f"({progress.best_eval_loss:.4f}, and {last:.4f} after step {progress.step:,})"
    )


def _copied(run: Run) -> dict[str, torch.Tensor]:
    """In the CPU's memory, where they take no room that training needs."""
    return {name: tensor.detach().cpu().clone() for name, tensor in peft_tensors(run.layers).items()}


def _validations(count: int) -> str:
    return "1 validation" if count == 1 else f"{count:,} validations"
