"""Smaller micro-batches where memory does not suffice, and in the end a failure that says what was missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from common.child import ChildError
from training.trainer.batches import collate
from training.trainer.loss import loss_sum
from training.trainer.memory import OutOfMemory, counting_saved_bytes, free_bytes, let_go, memory_for

if TYPE_CHECKING:
    from training.trainer.step import Run

MAX_HALVINGS = 3

T = TypeVar("T")


def within_memory(run: Run, place: str, work: Callable[[], T]) -> T:
    """Return what `work` returns, which is tried again with smaller micro-batches where they do not fit into memory.

    Each time micro-batches are halved, and stay so for the rest of the run, up to three times. `place` says where that
    happens. Raises ChildError OUT_OF_MEMORY where it was not enough.
    """
    while True:
        try:
            return work()
        except OutOfMemory as error:
            missing = OutOfMemory(error.rows, error.tokens)  # its traceback would keep the tensors that were at work
        run.optimizer.zero_grad(set_to_none=True)
        let_go()
        _halve(run, place, missing)


def _halve(run: Run, place: str, missing: OutOfMemory) -> None:
    progress = run.progress
    if progress.halvings == MAX_HALVINGS or missing.rows == 1:
        raise ChildError("OUT_OF_MEMORY", f"Memory did not suffice at {place}. {_estimate(run, missing)}")
    progress.halvings += 1
    run.attempt.events.log(
        f"Memory did not suffice for a micro-batch of {missing} at {place}. It is halved and the accumulation "
        f"doubled from now on ({progress.halvings} of at most {MAX_HALVINGS} times)",
        level="WARNING",
    )


def _estimate(run: Run, missing: OutOfMemory) -> str:
    """What training on the micro-batch would have taken, what there is, and which settings would help."""
    config, left = run.orders.config, free_bytes(run.device)
    needed = _bytes_a_token(run)
    takes = f"about {needed * missing.tokens:,} bytes" if needed else "more"
    if missing.rows > 1:
        advice = f"Lower batch_size ({config.batch_size}) and raise gradient_accumulation instead, or lower "
    else:
        advice = "Lower "
    return (
        f"Training on {missing} takes {takes}, and {left:,} bytes are free. "
        f"{advice}max_sequence_tokens ({config.max_sequence_tokens:,})."
    )


def _bytes_a_token(run: Run) -> int | None:
    """Bytes that training keeps for each token, measured on the shortest row; None where not even that one fits."""
    examples = run.examples["train"]
    batch = collate(examples, [int(examples.lengths.argmin())], run.device)
    tokens = batch.ids.shape[1]
    try:
        with memory_for(batch), counting_saved_bytes(tokens) as saved:
            loss_sum(run.model, batch)
    except OutOfMemory:
        return None
    return math.ceil(sum(saved) / tokens)
