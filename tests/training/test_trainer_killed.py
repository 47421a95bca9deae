"""A trainer that is killed, or told to stop, at any point: whoever goes on from what it left ends with the same adapter."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from training.trainer.checkpoint import newest_whole

REPOSITORY = Path(__file__).parents[2]
SAVE_POINTS = 50

ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.fixture
def orders(orders: dict[str, Any]) -> dict[str, Any]:
    """Four steps with two checkpoints, of which one is kept."""
    orders["config"] |= {"max_steps": 4, "checkpoint_every_steps": 2, "keep_checkpoints": 1, "eval_every_steps": 4}
    return orders


@pytest.fixture
def bit_equal_after(
    orders: dict[str, Any], fork_trainer: Any, result_of: ResultOf
) -> Callable[[str, Sequence[float]], list[str]]:
    """Kill a run at some of the points of a place (0 the first, 1 the last), and finish it from what it left."""

    def check(within: str, shares: Sequence[float]) -> list[str]:
        straight = fork_trainer(orders, "straight", signal=None, within=within)
        assert straight.wait() == 0
        expected = result_of(straight.folder)["adapter"]
        points = straight.folder.with_suffix(".points").read_text().splitlines()
        places = sorted({1 + round(share * (len(points) - 1)) for share in shares})
        assert len(places) == len(shares), "too few points to choose from"
        for at in places:
            killed = fork_trainer(orders, f"killed-{at}", signal="SIGKILL", within=within, at=at)
            assert killed.wait() == -signal.SIGKILL
            assert killed.folder.with_suffix(".fault").read_text() == points[at - 1]
            assert not (killed.folder / "result.json").exists()
            saved = newest_whole(killed.folder / "checkpoints")
            again = fork_trainer({**orders, "resume_from": saved and str(saved.folder)}, f"again-{at}")
            assert again.wait() == 0
            assert result_of(again.folder)["adapter"] == expected, f"{points[at - 1]}, the {at}th of {len(points)}"
            files = [(folder / "adapter/adapter_model.safetensors") for folder in (straight.folder, again.folder)]
            assert files[0].read_bytes() == files[1].read_bytes()
        return [points[at - 1] for at in places]

    return check


def evenly(count: int) -> list[float]:
    return [index / (count - 1) for index in range(count)]


@pytest.mark.parametrize("within", ["save", "leave", "step"])
def test_killed_on_the_way_it_ends_with_the_same_adapter(within: str, bit_equal_after: Any) -> None:
    bit_equal_after(within, [0.37, 0.83])


def test_killed_at_fifty_points_of_its_saves_it_ends_with_the_same_adapter(bit_equal_after: Any) -> None:
    killed_at = bit_equal_after("save", evenly(SAVE_POINTS))
    assert len(killed_at) == SAVE_POINTS
    calls = {"mkdir", "serialize_file", "open", "write", "fsync", "rename", "unlink"}
    assert calls <= {point.split()[1] for point in killed_at}


@pytest.mark.parametrize(("within", "count"), [("leave", 24), ("step", 12)])
def test_killed_elsewhere_it_ends_with_the_same_adapter(within: str, count: int, bit_equal_after: Any) -> None:
    bit_equal_after(within, evenly(count))


@pytest.mark.parametrize("within", ["set_up", "step", "validate", "save", "score"])
def test_told_to_stop_it_leaves_a_checkpoint_from_which_the_run_ends_the_same(
    within: str, orders: dict[str, Any], fork_trainer: Any, result_of: ResultOf, events_of: EventsOf
) -> None:
    straight = fork_trainer(orders, "straight", signal=None, within=within)
    assert straight.wait() == 0
    points = straight.folder.with_suffix(".points").read_text().splitlines()
    stopped = fork_trainer(orders, "stopped", signal="SIGTERM", within=within, at=len(points) * 5 // 8)
    assert stopped.wait() == 0
    assert stopped.folder.with_suffix(".fault").exists()
    assert result_of(stopped.folder) == {"status": "interrupted"}
    assert not (stopped.folder / "adapter").exists()
    saved = newest_whole(stopped.folder / "checkpoints")
    steps = {"set_up": None, "step": 2, "validate": 4, "save": 4, "score": 4}
    assert (saved and saved.step) == steps[within]
    assert [event["step"] for event in events_of(stopped.folder, "CheckpointSaved")][-1:] == (
        [saved.step] if saved else []
    )
    again = fork_trainer({**orders, "resume_from": saved and str(saved.folder)}, "again")
    assert again.wait() == 0
    assert result_of(again.folder)["adapter"] == result_of(straight.folder)["adapter"]


def test_told_to_stop_from_outside_it_leaves_a_whole_checkpoint_of_its_last_step(
    orders: dict[str, Any], fork_trainer: Any, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"] |= {"epochs": 1_000, "max_steps": 120, "eval_every_steps": 120, "checkpoint_every_steps": 120}
    orders["config"] |= {"batch_size": 1, "gradient_accumulation": 1}
    stopped = fork_trainer(orders, "stopped")
    await_event(stopped.folder, lambda event: event["kind"] == "StepLogged")
    os.kill(stopped.pid, signal.SIGTERM)
    assert stopped.wait() == 0
    assert result_of(stopped.folder) == {"status": "interrupted"}
    saved = newest_whole(stopped.folder / "checkpoints")
    assert saved is not None
    assert 1 <= saved.step < 120
    assert [event["step"] for event in events_of(stopped.folder, "CheckpointSaved")] == [saved.step]

    straight = fork_trainer(orders, "straight")
    assert straight.wait() == 0
    resumed = fork_trainer({**orders, "resume_from": str(saved.folder)}, "resumed")
    assert resumed.wait() == 0
    assert result_of(resumed.folder)["adapter"] == result_of(straight.folder)["adapter"]


def test_told_to_stop_while_it_imports_its_libraries_it_ends_at_once(
    orders: dict[str, Any], tmp_path: Path, result_of: ResultOf, events_of: EventsOf
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(orders))
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "training.trainer", str(tmp_path)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        await_event(tmp_path, lambda event: event["text"] == "Starting the trainer")
        process.send_signal(signal.SIGTERM)
        _, imports = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert result_of(tmp_path) == {"status": "interrupted"}
    assert [event["text"] for event in events_of(tmp_path, "LogLine")] == ["Starting the trainer"]
    assert "training.trainer.orders" in imports
    assert "training.trainer.schedule" not in imports, "it went on to the last of them"


def await_event(folder: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Return once the attempt's events tell of what is wanted."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        log = folder / "events.jsonl"
        if any(wanted(json.loads(line)) for line in (log.read_text().splitlines() if log.exists() else [])):
            return
        time.sleep(0.02)
    pytest.fail("It never came that far.")
