"""Numbers that are not finite: the step is skipped, too many end the run, and no such weight is ever saved."""

import json
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from training.trainer.checkpoint import newest_whole

torch = pytest.importorskip("torch")

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]

pytestmark = pytest.mark.faults


@pytest.fixture
def orders(orders: dict[str, Any]) -> dict[str, Any]:
    """Twelve steps with a checkpoint after each, all of them kept."""
    orders["config"] |= {"max_steps": 12, "gradient_accumulation": 1, "checkpoint_every_steps": 1}
    orders["config"] |= {"keep_checkpoints": 12, "eval_every_steps": 12}
    return orders


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make the loss, or the gradient alone, NaN or infinite at some steps, however often they are made."""
    from training.trainer import loss, step

    def poison(steps: Iterable[int], what: str = "loss", value: float = float("nan")) -> None:
        def poisoned(model: Any, batch: Any) -> Any:
            total = loss.loss_sum(model, batch)
            number = torch.initial_seed() & 0xFFFFFFFF  # what the trainer seeds a step with
            if number not in steps:
                return total
            if what == "loss":
                return total * value
            total.register_hook(lambda gradient: gradient * value)
            return total

        monkeypatch.setattr(step, "loss_sum", poisoned)

    return poison


def warnings_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["level"] == "WARNING"]


def state_at(folder: Path, step: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The weights, the moments, and the progress in a checkpoint."""
    saved = folder / f"checkpoints/step-{step:06d}"
    progress = json.loads((saved / "state.json").read_text())["progress"]
    return load_file(saved / "adapter_model.safetensors"), load_file(saved / "optimizer.safetensors"), progress


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("what", "value"), [("loss", float("nan")), ("loss", float("inf")), ("gradient", float("nan"))]
)
def test_three_steps_in_a_row_are_skipped_and_the_run_goes_on(
    what: str, value: float, orders: Any, run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf, poison: Any
) -> None:
    poison({5, 6, 7}, what, value)
    folder = run_trainer(orders)
    result = result_of(folder)
    assert (result["status"], result["steps"], result["skipped_steps"]) == ("succeeded", 12, 3)
    assert warnings_of(events_of(folder, "LogLine")) == [
        f"Step {step} was skipped: its {what} was not finite" for step in (5, 6, 7)
    ]
    weights, moments, progress = state_at(folder, 4)
    for step in (5, 6, 7):
        after = state_at(folder, step)
        assert same(after[0], weights) and same(after[1], moments)
        assert (after[2]["step"], after[2]["tokens"]) == (step, progress["tokens"])
    assert not same(state_at(folder, 8)[0], weights)
    assert {float(tensor) for name, tensor in state_at(folder, 12)[1].items() if name.endswith(".step")} == {9.0}


def test_a_skipped_step_takes_its_place_in_the_schedule_and_in_the_order_of_rows(
    orders: Any, run_trainer: RunTrainer, events_of: EventsOf, poison: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.fit.LOG_EVERY_S", 0.0)
    straight = events_of(run_trainer(orders, "straight"), "StepLogged")
    poison({5})
    skipped = events_of(run_trainer(orders, "skipped"), "StepLogged")
    assert [event["step"] for event in skipped] == list(range(1, 13))
    assert [event["learning_rate"] for event in skipped] == [event["learning_rate"] for event in straight]
    assert [event["loss"] for event in skipped[:4]] == [event["loss"] for event in straight[:4]]
    assert (skipped[4]["loss"], skipped[4]["tokens"]) == (None, skipped[3]["tokens"])
    tokens = [
        [after["tokens"] - before["tokens"] for before, after in pairwise(run[5:])] for run in (straight, skipped)
    ]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize(("bad", "failing"), [({3, 4, 5, 6}, 6), ({2, 4, 6, 8}, 8)], ids=["in a row", "in all"])
def test_one_more_ends_the_run_with_its_step_and_the_newest_checkpoint_is_finite(
    bad: set[int], failing: int, orders: Any, run_trainer: RunTrainer, result_of: ResultOf, poison: Any
) -> None:
    poison(bad)
    folder = run_trainer(orders)
    result = result_of(folder)
    assert (result["status"], result["code"]) == ("failed", "NUMERICS")
    assert f"step {failing}, and 3 steps had been skipped" in result["message"]
    assert not (folder / "adapter").exists()
    newest = newest_whole(folder / "checkpoints")
    assert newest is not None and newest.step == failing - 1
    weights, moments, _ = state_at(folder, failing - 1)
    assert all(tensor.isfinite().all() for tensor in (weights | moments).values())


def test_a_long_run_may_skip_one_step_of_a_hundred_but_not_four_in_a_row(
    orders: Any, run_trainer: RunTrainer, result_of: ResultOf, poison: Any
) -> None:
    orders["config"] |= {"max_steps": 500, "epochs": 1_000, "checkpoint_every_steps": 500, "eval_every_steps": 500}
    poison({3, 6, 9, 12, 15, 18})
    assert "step 18, and 5 steps had been skipped" in result_of(run_trainer(orders, "spread"))["message"]
    poison({3, 10, 11, 12, 13})
    assert "step 13, and 4 steps had been skipped" in result_of(run_trainer(orders, "in-a-row"))["message"]


def test_a_run_of_skipped_steps_alone_has_not_succeeded(
    orders: Any, run_trainer: RunTrainer, result_of: ResultOf, poison: Any
) -> None:
    orders["config"]["max_steps"] = 2
    poison({1, 2})
    assert result_of(run_trainer(orders))["code"] == "NUMERICS"


def test_skips_are_remembered_so_a_resumed_run_equals_the_straight_one(
    orders: Any, run_trainer: RunTrainer, result_of: ResultOf, poison: Any
) -> None:
    poison({5, 6, 8})
    straight = run_trainer(orders, "straight")
    for step in (4, 5, 7):
        resumed = run_trainer({**orders, "resume_from": str(straight / f"checkpoints/step-{step:06d}")}, f"from-{step}")
        for name in ("adapter", "skipped_steps", "tokens", "last_loss"):
            assert result_of(resumed)[name] == result_of(straight)[name], name
    poison({5, 6, 8, 10})
    last = {**orders, "resume_from": str(straight / "checkpoints/step-000009")}
    assert result_of(run_trainer(last, "one-more"))["code"] == "NUMERICS"


@pytest.mark.parametrize("poisoned_at", [4, 12], ids=["on the way", "in the last step"])
@pytest.mark.parametrize("which", ["weight", "moment"])
def test_what_is_not_finite_is_never_saved(
    which: str, poisoned_at: int, orders: Any, run_trainer: RunTrainer, result_of: ResultOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = torch.optim.AdamW.step

    def overflow(optimizer: Any) -> None:
        real(optimizer)
        tensor = optimizer.param_groups[0]["params"][3]
        if optimizer.state[tensor]["step"] == poisoned_at:
            (tensor.data if which == "weight" else optimizer.state[tensor]["exp_avg"])[0, 0] = float("inf")

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    orders["data"] = {**orders["data"], "validation": [], "test": []}
    folder = run_trainer(orders)
    result = result_of(folder)
    assert (result["status"], result["code"]) == ("failed", "NUMERICS")
    assert f"after step {poisoned_at}" in result["message"]
    newest = newest_whole(folder / "checkpoints")
    assert newest is not None and newest.step == poisoned_at - 1
    assert not (folder / "adapter").exists()
