"""The arithmetic behind an estimate, on round numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from training.trainer.config import Quantization, TrainingConfig
from training.trainer.costs import Costs, Estimator, Fit, Measurement, Shape, Workload
from training.trainer.lengths import Lengths
from training.trainer.sampler import Sampler
from training.workload import ROW_VISITS, until_soonest_end, workload

SHAPE = Shape(layers=4, hidden=100, intermediate=400, key_value=50, vocabulary=1_000, context_tokens=512)
COSTS = Costs(
    measurement=Measurement(layers=4, start_s=5.0, free_bytes=10**9, scoring_peak_bytes=105_000_000),
    seconds=Fit(fixed=0.1, token=0.001, square=0.0),
    peak_bytes=Fit(fixed=10**8, token=10_000, square=1),
    forward_share=0.3,
)
WORK = Workload(
    steps=10,
    tokens=10_000,
    squares=1e6,
    micro_batches=20,
    largest=(1_000, 50_000.0),
    longest=80,
    scored_tokens=2_000,
    scored_squares=1e5,
    read_tokens=0,
    checkpoints=0,
    counted_share=1.0,
)


def test_a_line_goes_through_what_was_measured() -> None:
    points = [(100, 10_000, 7.0), (800, 80_000, 28.0), (800, 640_000, 56.0)]
    fit = Fit.through(points)
    assert [fit.at(tokens, squares) for tokens, squares, _ in points] == pytest.approx([7, 28, 56])
    assert fit.at(1_600, 160_000, batches=2) == pytest.approx(56)
    noisy = Fit.through([(100, 10_000, 7.0), (800, 80_000, 6.0), (800, 640_000, 5.0)])
    assert (noisy.token, noisy.square, noisy.fixed) == (0, 0, 7), "nothing costs less than nothing"


def test_the_default_recipe_costs_what_was_measured() -> None:
    estimator = Estimator(SHAPE, COSTS, is_cpu=True)
    assert estimator.step_seconds(WORK, TrainingConfig()) == pytest.approx(0.1 * 20 + 0.001 * 10_000)
    assert estimator.other_seconds(WORK) == pytest.approx(5 + 0.3 * (0.1 * 2_000 / 4_096 + 0.001 * 2_000))
    assert estimator.peak_bytes(WORK, TrainingConfig()) == 10**8 + 10_000 * 1_000 + 50_000


@pytest.mark.parametrize(("next_token_s", "seconds"), [(0.01, 4 * 144 * 0.01), (0.1, 4 * 5.0)])
def test_samples_take_what_their_tokens_take_and_no_more_than_they_may(next_token_s: float, seconds: float) -> None:
    costs = replace(COSTS, measurement=replace(COSTS.measurement, next_token_s=next_token_s))
    estimator = Estimator(SHAPE, costs, is_cpu=True)
    others = estimator.other_seconds(WORK)
    assert estimator.other_seconds(replace(WORK, samples=4)) - others == pytest.approx(seconds)


def test_a_small_micro_batch_takes_what_the_held_out_rows_take() -> None:
    estimator = Estimator(SHAPE, COSTS, is_cpu=True)
    assert estimator.peak_bytes(replace(WORK, largest=(10, 100.0)), TrainingConfig()) == 105_000_000


@pytest.mark.parametrize(
    ("change", "slower", "larger"),
    [
        ({"lora_rank": 64}, True, True),
        ({"lora_rank": 4}, False, False),
        ({"target_modules": ("q_proj",)}, False, False),
        ({"lora_dropout": 0.0}, False, False),
    ],
)
def test_another_recipe_costs_more_or_less(change: dict[str, Any], slower: bool, larger: bool) -> None:
    estimator, config = Estimator(SHAPE, COSTS, is_cpu=True), replace(TrainingConfig(), **change)
    assert (estimator.step_seconds(WORK, config) > estimator.step_seconds(WORK, TrainingConfig())) is slower
    assert (estimator.peak_bytes(WORK, config) > estimator.peak_bytes(WORK, TrainingConfig())) is larger


def test_weights_that_are_not_quantized_take_less_beside_copies_and_more_without() -> None:
    """NF4 keeps its weights dequantized where memory allows, beside their four bits."""
    unquantized = replace(TrainingConfig(), quantization=Quantization.NONE)
    roomy = Estimator(SHAPE, COSTS, is_cpu=True)
    assert roomy.peak_bytes(WORK, unquantized) < roomy.peak_bytes(WORK, TrainingConfig())
    narrow = Estimator(SHAPE, replace(COSTS, measurement=Measurement(4, 5.0, 1_000, 0)), is_cpu=True)
    more = narrow.peak_bytes(WORK, unquantized) - narrow.peak_bytes(WORK, TrainingConfig())
    assert more == pytest.approx(SHAPE.linear_weights * (4 - 0.53), rel=1e-3)


def test_some_layers_stand_for_all() -> None:
    of_two = replace(COSTS, measurement=replace(COSTS.measurement, layers=2))
    whole, part = Estimator(SHAPE, COSTS, is_cpu=False), Estimator(SHAPE, of_two, is_cpu=False)
    ratio = part.step_seconds(WORK, TrainingConfig()) / whole.step_seconds(WORK, TrainingConfig())
    assert 1.6 < ratio < 1.9, "the output layer is there once"


@pytest.mark.parametrize(("longest", "largest"), [(80, (125, 6_400)), (200, (200, 40_000))])
def test_a_micro_batch_is_halved_three_times_and_no_row_is(longest: int, largest: tuple[int, float]) -> None:
    assert replace(WORK, longest=longest).halved() == replace(WORK, longest=longest, largest=largest)


def rows(totals: Any, rows_in_all: int | None = None, needs: Any = None) -> Lengths:
    totals = np.asarray(totals, np.int64)
    needs = np.full(len(totals), 16) if needs is None else np.asarray(needs, np.int64)
    return Lengths(rows_in_all or len(totals), len(totals), totals, needs, 0.5)


def test_a_run_does_what_its_config_says() -> None:
    splits = {"train": rows([100] * 40), "validation": rows([50] * 10), "test": rows([30] * 10)}
    config = TrainingConfig(epochs=2, batch_size=2, max_sequence_tokens=100, gradient_accumulation=2)
    assert workload(splits, config, 100) == Workload(
        steps=20,
        tokens=8_000,
        squares=2 * 40 * 100**2,
        micro_batches=40,
        largest=(200, 2 * 100**2),
        longest=100,
        scored_tokens=4 * 500 + 2 * 300,
        scored_squares=4 * 10 * 50**2 + 2 * 10 * 30**2,
        read_tokens=4_000 + 500 + 300,
        checkpoints=10,
        counted_share=0.5,
        samples=4,
    )


def test_a_third_adapter_is_measured_on_the_test_rows_and_on_no_others() -> None:
    splits = {"train": rows([100] * 40), "validation": rows([50] * 10), "test": rows([30] * 10)}
    config = TrainingConfig(epochs=2, batch_size=2, max_sequence_tokens=100)
    two, three = (workload(splits, config, 100, test_passes=passes) for passes in (2, 3))
    assert three == replace(two, scored_tokens=4 * 500 + 3 * 300, scored_squares=4 * 10 * 50**2 + 3 * 10 * 30**2)
    assert workload({"train": rows([100] * 40)}, config, 100, test_passes=3).scored_tokens == 0


@pytest.mark.parametrize(
    ("every", "steps", "samples"), [(2, 40, 20), (1, 40, 20), (1, 41, 14), (3, 7, 3), (None, 40, 4), (50, 40, 1)]
)
def test_samples_are_beside_as_many_validations_as_the_trainer_makes_them(
    every: int | None, steps: int, samples: int
) -> None:
    splits = {"train": rows([100] * 82), "validation": rows([50] * 10)}
    config = TrainingConfig(epochs=1, batch_size=2, max_sequence_tokens=100, max_steps=steps, eval_every_steps=every)
    total, interval = steps, every or math.ceil(steps / 4)
    stride = math.ceil(total / interval / 20)  # as samples.py has it
    due = [step for step in range(1, total + 1) if step % interval == 0 or step == total]
    assert len([step for step in due if step >= total or step // interval % stride == 0]) == samples
    assert workload(splits, config, 100).samples == samples
    assert workload({"train": splits["train"]}, config, 100).samples == 0


def test_what_stops_early_has_the_samples_until_then() -> None:
    splits = {"train": rows([100] * 82), "validation": rows([50] * 10)}
    config = TrainingConfig(epochs=1, batch_size=2, max_sequence_tokens=100, eval_every_steps=1)
    work = workload(splits, config, 100)
    assert (work.steps, work.samples) == (41, 14), "beside every third validation, and the last"
    for patience, samples in ((1, 0), (4, 1), (5, 2), (100, 14)):
        soonest = until_soonest_end(work, splits, replace(config, early_stopping_patience=patience), 100)
        assert soonest.samples == samples


def test_held_out_rows_that_nobody_looks_at_are_not_read() -> None:
    splits = {"train": rows([100] * 40, 400), "validation": rows([50] * 10, 100), "test": rows([30] * 10, 100)}
    assert workload(splits, TrainingConfig(epochs=1), 100).read_tokens == 40_000 + 500 + 300


def test_rows_are_cut_and_left_out_as_the_trainer_does() -> None:
    splits = {"train": rows([100] * 40, needs=[16] * 30 + [60] * 10)}
    assert workload(splits, TrainingConfig(epochs=1), 50).tokens == 30 * 50
    assert workload(splits, TrainingConfig(epochs=1), 60).tokens == 40 * 60


def test_of_very_many_epochs_the_first_stand_for_the_others() -> None:
    lengths = np.random.default_rng(3).lognormal(4, 1, 2_000).astype(np.int64) + 2
    config = TrainingConfig(epochs=400, max_sequence_tokens=256)
    assert ROW_VISITS < 2_000 * 400
    exact = Sampler(np.minimum(lengths, 256), config, 256).total_steps
    assert workload({"train": rows(lengths)}, config, 256).steps == pytest.approx(exact, rel=0.002)


def test_counted_rows_stand_for_all() -> None:
    lengths = np.random.default_rng(3).lognormal(4, 1, 40_000).astype(np.int64) + 2
    config = TrainingConfig(max_sequence_tokens=256)
    whole = workload({"train": rows(lengths)}, config, 256)
    part = workload({"train": rows(lengths[::10], rows_in_all=40_000)}, config, 256)
    assert part.steps == pytest.approx(whole.steps, rel=0.02)
    assert part.tokens == pytest.approx(whole.tokens, rel=0.02)
    assert workload({"train": rows(lengths[::10], 40_000)}, replace(config, max_steps=9), 256).steps == 9
