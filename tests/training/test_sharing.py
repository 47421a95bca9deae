"""What a run takes that several processes share: each its part, and none begins the next step before the last of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.training.test_costs import COSTS, SHAPE, WORK, rows
from training.sharing import MICRO_BATCHES, busiest
from training.trainer.config import TrainingConfig
from training.trainer.costs import Costs, Estimator, Measurement, Share
from training.trainer.sampler import Sampler
from training.workload import workload

HALVES = replace(WORK, processes=2, share=Share(0.5, 0.5, 1.0))
ADAPTER_BYTES = 4 * 4 * 16 * (200 + 150 + 150 + 200 + 500 + 500)


def on(cores: int, threads: int) -> Costs:
    return replace(COSTS, measurement=replace(COSTS.measurement, cores=cores, threads=threads))


def share(lengths: list[int], processes: int, **config: Any) -> Share:
    made, of_rows = TrainingConfig(packing=False, **config), np.asarray(lengths)
    return busiest(Sampler(of_rows, made, max(lengths)), of_rows, processes, made.gradient_accumulation)


@pytest.mark.parametrize(
    ("lengths", "processes", "config", "expected"),
    [
        ([100] * 40, 2, {"batch_size": 2}, (0.5, 0.5, 1.0)),
        ([100] * 40, 2, {"batch_size": 2, "gradient_accumulation": 2}, (0.5, 0.5, 1.0)),
        ([100] * 40, 4, {"batch_size": 8}, (0.25, 0.25, 1.0)),
        ([100] * 40, 4, {"batch_size": 2}, (0.5, 0.5, 1.0)),  # two of them have nothing to do
        ([100] * 40, 2, {"batch_size": 1}, (1.0, 1.0, 1.0)),  # one has
        ([10] * 30, 2, {"batch_size": 3}, (2 / 3, 2 / 3, 2.0)),  # the third row is the first one's, too
        ([40], 2, {}, (1.0, 1.0, 1.0)),
    ],
)
def test_the_one_that_has_most_to_do_has_so_much(
    lengths: list[int], processes: int, config: dict[str, Any], expected: tuple[float, float, float]
) -> None:
    assert share(lengths, processes, **config) == Share(*map(pytest.approx, expected))


def test_of_each_step_it_is_the_one_with_most_tokens() -> None:
    """Two rows a step, each in a process of its own, of which the longer one counts."""
    lengths = np.asarray([30, 10] * 20)
    config = TrainingConfig(packing=False, batch_size=2, epochs=1)
    sampler = Sampler(lengths, config, 30)
    pairs = [lengths[sampler.rows(step)[0]] for step in range(20)]
    most = sum(max(pair) for pair in pairs)
    assert 400 < most < 600
    assert busiest(sampler, lengths, 2, 1) == Share(most / 800, sum(max(pair) ** 2 for pair in pairs) / 20_000, 1.0)


def test_of_many_steps_some_stand_for_all() -> None:
    lengths = np.random.default_rng(3).lognormal(4, 1, 4_000).astype(np.int64) + 2
    config = TrainingConfig(packing=False, batch_size=4, epochs=1)
    sampler = Sampler(lengths, config, 2_000)
    assert sampler.total_steps == 1_000 > MICRO_BATCHES
    shares = [sampler.shares(sampler.rows(step), 2) for step in range(1_000)]
    most = sum(max(sum(lengths[part].sum() for part in each) for each in halves) for halves in shares)
    assert busiest(sampler, lengths, 2, 1).tokens == pytest.approx(most / lengths.sum(), rel=0.05)


def test_of_a_step_with_very_many_micro_batches_the_first_stand_for_all() -> None:
    lengths = [100] * 4_000
    assert share(lengths, 2, batch_size=2, gradient_accumulation=1_000) == Share(0.5, 0.5, 1.0)


def test_the_work_is_all_processes_and_what_is_in_memory_at_once_is_one_of_thems() -> None:
    splits = {"train": rows([100] * 40), "validation": rows([50] * 10), "test": rows([30] * 10)}
    config = TrainingConfig(epochs=2, batch_size=4, max_sequence_tokens=100)
    alone, shared = (workload(splits, config, 100, processes) for processes in (1, 2))
    assert alone.largest == (400, 4 * 100**2)
    assert shared == replace(alone, processes=2, share=Share(0.5, 0.5, 1.0), largest=(200, 2 * 100**2))
    assert workload(splits, config, 100, 8).largest == (100, 100**2), "no row is cut"


@pytest.mark.parametrize(("cores", "crowded"), [(8, 1), (4, 1), (3, 4 / 3), (2, 2), (1, 2)])
def test_on_a_cpu_they_share_its_cores_and_exchange_their_gradients(cores: int, crowded: float) -> None:
    """Two of two threads each have four cores, or wait for each other."""
    estimator = Estimator(SHAPE, on(cores, threads=2), is_cpu=True)
    exchanging = 10 * ADAPTER_BYTES / 500_000_000
    stepping = 0.1 * 20 + 0.001 * 10_000 / 2
    assert estimator.step_seconds(HALVES, TrainingConfig()) == pytest.approx(crowded * stepping + exchanging)
    scoring = 0.3 * (0.1 * 2_000 / 4_096 + 0.001 * 2_000)  # the first one alone
    assert estimator.other_seconds(HALVES) == pytest.approx(5 * max(1, 2 / cores) + scoring)


def test_with_an_accelerator_each_they_take_half_as_long() -> None:
    estimator = Estimator(SHAPE, on(cores=1, threads=1), is_cpu=False)
    assert estimator.step_seconds(HALVES, TrainingConfig()) == pytest.approx(0.1 * 20 + 0.001 * 10_000 / 2)
    assert estimator.other_seconds(HALVES) == estimator.other_seconds(WORK)


def test_one_alone_takes_what_was_measured_on_whatever_cores() -> None:
    one, four = (Estimator(SHAPE, on(cores, threads=2), is_cpu=True) for cores in (1, 4))
    assert one.step_seconds(WORK, TrainingConfig()) == four.step_seconds(WORK, TrainingConfig())
    assert one.other_seconds(WORK) == four.other_seconds(WORK)


def test_memory_of_a_cpu_is_taken_by_all_and_an_accelerators_by_one() -> None:
    """The first one scores, too, which takes more than its part of a micro-batch does."""
    work = replace(HALVES, largest=(400, 10_000.0))
    each = 10**8 + 10_000 * 400 + 10_000
    first = 105_000_000  # scores more than that
    assert Estimator(SHAPE, COSTS, is_cpu=True).peak_bytes(work, TrainingConfig()) == first + each
    assert Estimator(SHAPE, COSTS, is_cpu=False).peak_bytes(work, TrainingConfig()) == first
    just_enough = replace(COSTS, measurement=replace(COSTS.measurement, free_bytes=first + each))
    assert Estimator(SHAPE, just_enough, is_cpu=True).fits(work, TrainingConfig())
    assert not Estimator(SHAPE, just_enough, is_cpu=True).fits(replace(work, processes=3), TrainingConfig())


def test_a_measurement_of_before_knows_of_no_cores_and_promises_nothing_of_them() -> None:
    before = COSTS.to_json()
    for name in ("next_token_s", "threads", "cores"):
        del before["measurement"][name]
    read = Costs.from_json(before)
    assert read.measurement == Measurement(4, 5.0, 10**9, 105_000_000, next_token_s=0.0, threads=1, cores=1)
