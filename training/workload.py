"""What a run has to do, out of the lengths of its rows and its config: the trainer's own arithmetic, within milliseconds.

It is exact while no more rows than ROW_VISITS are looked at, epochs multiplied, none were left out by the count, and none
are rearranged (fim.py), which adds tokens that nobody has counted; beyond, the first epochs stand for the others, and the
counted rows for all. Of several processes' shares some steps of the first epoch stand for all (sharing.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.errors import Invalid
from training.sharing import busiest
from training.trainer.config import TrainingConfig
from training.trainer.costs import TEST_PASSES, Workload
from training.trainer.lengths import Lengths
from training.trainer.sampler import Sampler

ROW_VISITS = 200_000
MOST_EPOCHS = 1_000
"""As config.py has it."""
VALIDATION_TOKENS = 16_384
"""As evaluation.py has it."""
EVALUATIONS, CHECKPOINTS = 4, 10
"""How often, where a config does not say: as fit.py has it."""
SAMPLED_TIMES = 20
"""As samples.py has it."""


def workload(
    splits: Mapping[str, Lengths],
    config: TrainingConfig,
    max_tokens: int,
    processes: int = 1,
    test_passes: int = TEST_PASSES,
) -> Workload:
    """Of a run in so many processes, with so many passes over its test rows.

    Raises Invalid with NO_TRAINING_ROWS where nothing can be learned from with so long sequences.
    """
    train = splits["train"]
    lengths = train.at(max_tokens)
    if len(lengths) == 0:
        raise Invalid(
            "No row of the training split has anything to learn from.",
            code="NO_TRAINING_ROWS",
            field="datasetVersionId",
        )
    steps, epochs, first = _steps(lengths, train.scale, config, max_tokens)
    micro_tokens, micro_squares = first.micro_batch_sizes()
    largest = int(micro_tokens.argmax())
    validations = _times(steps, config.eval_every_steps, EVALUATIONS)
    tokens, squares = _scored(splits, max_tokens, validations, test_passes)
    work = Workload(
        steps=steps,
        tokens=round(float(lengths.sum()) * train.scale * epochs),
        squares=float((lengths * lengths).sum()) * train.scale * epochs,
        micro_batches=steps * config.gradient_accumulation,
        largest=(int(micro_tokens[largest]), float(micro_squares[largest])),
        longest=int(lengths.max()),
        scored_tokens=tokens,
        scored_squares=squares,
        read_tokens=sum(
            float(split.totals.sum()) * (split.scale if name == "train" else 1.0) for name, split in splits.items()
        ),
        checkpoints=_times(steps, config.checkpoint_every_steps, CHECKPOINTS),
        counted_share=train.counted_share,
        samples=_sampled(splits, max_tokens, validations, validations),
    )
    if processes == 1:
        return work
    share = busiest(first, lengths, processes, config.gradient_accumulation)
    return replace(work, processes=processes, share=share, largest=work.part_of_largest(processes))


def until_soonest_end(
    work: Workload,
    splits: Mapping[str, Lengths],
    config: TrainingConfig,
    max_tokens: int,
    test_passes: int = TEST_PASSES,
) -> Workload:
    """What is done where patience runs out as soon as it can: the first validation is the best, and no later one better."""
    patience = config.early_stopping_patience
    if patience is None or "validation" not in splits or len(splits["validation"].at(max_tokens)) == 0:
        return work
    validations = 1 + patience
    steps = validations * (config.eval_every_steps or math.ceil(work.steps / EVALUATIONS))
    planned = _times(work.steps, config.eval_every_steps, EVALUATIONS)
    if steps >= work.steps:
        return work
    share = steps / work.steps
    tokens, squares = _scored(splits, max_tokens, validations, test_passes)
    return replace(
        work,
        steps=steps,
        tokens=round(work.tokens * share),
        squares=work.squares * share,
        micro_batches=steps * config.gradient_accumulation,
        scored_tokens=tokens,
        scored_squares=squares,
        checkpoints=math.ceil(work.checkpoints * share),
        samples=_sampled(splits, max_tokens, validations, planned),
    )


def _steps(
    lengths: NDArray[np.int64], scale: float, config: TrainingConfig, max_tokens: int
) -> tuple[int, float, Sampler]:
    """The steps of the run, the epochs that those are, and the sampler that has counted them."""
    at_most = min(max(1, ROW_VISITS // len(lengths)), MOST_EPOCHS)
    if (config.packing and config.epochs > at_most) or scale > 1:
        counted = Sampler(lengths, replace(config, epochs=float(at_most), max_steps=None), max_tokens)
        an_epoch = counted.total_steps / at_most * scale
        steps = min(math.ceil(config.epochs * an_epoch), config.max_steps or math.inf)
        return int(steps), min(config.epochs, steps / an_epoch), counted
    sampler = Sampler(lengths, config, max_tokens)
    return sampler.total_steps, sampler.epochs_of(sampler.total_steps), sampler


def _times(steps: int, every: int | None, default: int) -> int:
    """How often something happens that is due every so many steps, and at the end."""
    return math.ceil(steps / (every or math.ceil(steps / default)))


def _sampled(splits: Mapping[str, Lengths], max_tokens: int, validations: int, planned: int) -> int:
    """Of the first validations of those that are planned, those with samples, as samples.py chooses them."""
    if "validation" not in splits or len(splits["validation"].at(max_tokens)) == 0:
        return 0
    stride = math.ceil(planned / SAMPLED_TIMES)
    return validations // stride if validations < planned else math.ceil(planned / stride)


def _scored(splits: Mapping[str, Lengths], max_tokens: int, validations: int, test_passes: int) -> tuple[float, float]:
    """Tokens and squares of lengths that go forward alone: some of the validation split each time, all of the test split."""
    tokens = squares = 0.0
    for name, times, most in (("validation", validations, VALIDATION_TOKENS), ("test", test_passes, math.inf)):
        lengths = splits[name].at(max_tokens) if name in splits else np.zeros(0, np.int64)
        if total := float(lengths.sum()):
            share = min(1.0, most / total)
            tokens += times * share * total
            squares += times * share * float((lengths * lengths).sum())
    return tokens, squares
