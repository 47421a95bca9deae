"""A run that was stopped and goes on ends with the same adapter, bit for bit, as one that never stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]


def test_resuming_from_the_third_of_six_steps_equals_the_straight_run(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    straight = run_trainer(orders, "straight")
    orders["resume_from"] = str(straight / "checkpoints/step-000003")
    resumed = run_trainer(orders, "resumed")
    expected, result = result_of(straight), result_of(resumed)
    for name in ("adapter", "steps", "tokens", "first_loss", "last_loss", "eval_loss", "test_loss"):
        assert result[name] == expected[name], name
    assert events_of(resumed, "StepLogged")[0]["step"] == 4
    assert [event["step"] for event in events_of(resumed, "Evaluated")] == [6]
    for file in ("adapter_model.safetensors", "optimizer.safetensors"):
        last = "checkpoints/step-000006"
        assert (resumed / last / file).read_bytes() == (straight / last / file).read_bytes()


def test_a_checkpoint_at_or_beyond_the_last_step_only_needs_its_adapter_measured(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    straight = run_trainer(orders, "straight")
    orders["resume_from"] = str(straight / "checkpoints/step-000006")
    for max_steps in (6, 3):
        orders["config"]["max_steps"] = max_steps
        resumed = run_trainer(orders, f"resumed-{max_steps}")
        assert result_of(resumed)["adapter"] == result_of(straight)["adapter"]
        assert events_of(resumed, "StepLogged") == []


@pytest.mark.faults
@pytest.mark.parametrize("damage", ["a byte flipped", "a file cut off", "a file missing", "the manifest torn"])
def test_a_damaged_checkpoint_is_passed_over_for_the_older_one(
    damage: str, orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"] |= {"checkpoint_every_steps": 2, "keep_checkpoints": 3}
    straight = run_trainer(orders, "straight")
    folder = straight / "checkpoints/step-000004"
    file = folder / ("manifest.json" if damage == "the manifest torn" else "optimizer.safetensors")
    content = file.read_bytes()
    match damage:
        case "a byte flipped":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "a file missing":
            file.unlink()
        case _:
            file.write_bytes(content[: len(content) // 2])
    orders["resume_from"] = str(folder)
    resumed = run_trainer(orders, "resumed")
    assert result_of(resumed)["adapter"] == result_of(straight)["adapter"]
    texts = [event["text"] for event in events_of(resumed, "LogLine")]
    assert "step-000004 is damaged; using step-000002" in texts
    assert "Going on from step 2" in texts


@pytest.mark.faults
def test_where_every_checkpoint_is_damaged_the_run_fails_typed(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    straight = run_trainer(orders, "straight")
    for weights in (straight / "checkpoints").glob("*/adapter_model.safetensors"):
        weights.write_bytes(bytes(10))
    orders["resume_from"] = str(straight / "checkpoints/step-000006")
    resumed = run_trainer(orders, "resumed")
    assert result_of(resumed)["code"] == "CHECKPOINT_DAMAGED"
    assert not (resumed / "adapter").exists()


def test_a_checkpoint_of_a_run_with_other_settings_is_refused(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    orders["config"]["max_steps"] = 3
    straight = run_trainer(orders, "straight")
    orders["resume_from"] = str(straight / "checkpoints/step-000003")
    orders["config"] |= {"lora_rank": 8, "learning_rate": 0.001}
    result = result_of(run_trainer(orders, "resumed"))
    assert result["code"] == "CHECKPOINT_MISMATCH"
    assert "lora_rank" in result["message"]
    assert "learning_rate" not in result["message"]
