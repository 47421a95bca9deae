"""A run that was stopped and goes on ends with the same adapter, bit for bit, as one that never stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.trainer.checkpoint import newest_whole

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]
REPOSITORY = Path(__file__).parents[2]


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


def test_a_damaged_checkpoint_is_passed_over_for_the_older_one(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"] |= {"checkpoint_every_steps": 2, "keep_checkpoints": 3}
    straight = run_trainer(orders, "straight")
    damaged = straight / "checkpoints/step-000004/optimizer.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    orders["resume_from"] = str(damaged.parent)
    resumed = run_trainer(orders, "resumed")
    assert result_of(resumed)["adapter"] == result_of(straight)["adapter"]
    texts = [event["text"] for event in events_of(resumed, "LogLine")]
    assert "step-000004 is damaged; using step-000002" in texts
    assert "Going on from step 2" in texts


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


def test_sigterm_leaves_a_whole_checkpoint_from_which_the_run_ends_the_same(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf, tmp_path: Path
) -> None:
    orders["config"] |= {"epochs": 1_000, "max_steps": 120, "eval_every_steps": 120, "checkpoint_every_steps": 120}
    folder = tmp_path / "stopped"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(orders))
    command = [sys.executable, "-m", "training.trainer", str(folder)]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        await_step(folder, 5, process)
        stopped_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
        assert time.monotonic() - stopped_at < 10
    finally:
        process.kill()
        process.wait()
    assert result_of(folder) == {"status": "interrupted"}
    assert not (folder / "adapter").exists()
    saved = newest_whole(folder / "checkpoints")
    assert saved is not None
    assert 5 <= saved.step < 120
    assert events_of(folder, "CheckpointSaved")[-1]["step"] == saved.step

    straight = run_trainer(orders, "straight")
    orders["resume_from"] = str(saved.folder)
    resumed = run_trainer(orders, "resumed")
    assert result_of(resumed)["adapter"] == result_of(straight)["adapter"]


def await_step(folder: Path, step: int, process: "subprocess.Popen[bytes]") -> None:
    """Return once the events tell of a step at or after `step`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "The trainer ended before it was to be stopped."
        events = folder / "events.jsonl"
        lines = events.read_text().splitlines() if events.exists() else []
        if any(event["kind"] == "StepLogged" and event["step"] >= step for event in map(json.loads, lines)):
            return
        time.sleep(0.02)
    pytest.fail("The trainer made no step.")
