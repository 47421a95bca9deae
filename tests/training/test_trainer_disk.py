"""A disk without space: a typed failure that says how much is missing, and all that was there before is whole."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.child import EXIT_DISK_FULL
from tests.small_disk import PAGE, SmallDisk
from training.trainer.checkpoint import newest_whole

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]
CHECKPOINT_BYTES = 26 * PAGE  # of which 93 KB are tensors; files take whole pages

pytestmark = pytest.mark.faults


@pytest.fixture
def orders(orders: dict[str, Any]) -> dict[str, Any]:
    """Four steps with two checkpoints."""
    orders["config"] |= {"max_steps": 4, "checkpoint_every_steps": 2, "eval_every_steps": 4}
    orders["data"] = {**orders["data"], "validation": [], "test": []}
    return orders


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_checkpoint_without_room_fails_typed_and_the_one_before_is_whole(
    orders: Any, disk: SmallDisk, run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    disk.leave(CHECKPOINT_BYTES + 10 * PAGE)
    folder = run_trainer(orders, str(disk.path / "attempt"))
    result = result_of(folder)
    assert (result["status"], result["code"]) == ("failed", "DISK_FULL")
    found = re.search(r"for the checkpoint of step 4: ([\d,]+) bytes needed, ([\d,]+) left\.", result["message"])
    assert found, result["message"]
    needed, left = (int(number.replace(",", "")) for number in found.groups())
    assert needed == 79_968 and 4 * PAGE <= left < 10 * PAGE
    assert names(folder) == [
        *(f"checkpoints/step-000002/{name}" for name in ("adapter_model.safetensors", "manifest.json")),
        *(f"checkpoints/step-000002/{name}" for name in ("optimizer.safetensors", "state.json")),
        *("events.jsonl", "result.json", "run.json"),
    ]
    assert [event["step"] for event in events_of(folder, "CheckpointSaved")] == [2]

    straight = run_trainer(orders, "straight")
    saved = newest_whole(folder / "checkpoints")
    assert saved is not None and saved.step == 2
    disk.make_room()
    resumed = run_trainer({**orders, "resume_from": str(saved.folder)}, str(disk.path / "again"))
    assert result_of(resumed)["adapter"] == result_of(straight)["adapter"]


def test_an_adapter_without_room_fails_typed_and_nothing_of_it_is_visible(
    orders: Any, disk: SmallDisk, run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    orders["config"]["max_steps"] = 2
    disk.leave(CHECKPOINT_BYTES + 10 * PAGE)
    folder = run_trainer(orders, str(disk.path / "attempt"))
    result = result_of(folder)
    assert (result["status"], result["code"]) == ("failed", "DISK_FULL")
    assert "for the adapter: " in result["message"]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoints", "events.jsonl", "result.json", "run.json"]
    assert newest_whole(folder / "checkpoints") is not None


@pytest.mark.slow
def test_a_log_without_room_ends_the_run_and_has_whole_lines_only(
    orders: Any, disk: SmallDisk, run_trainer: RunTrainer
) -> None:
    orders["config"] |= {"max_steps": 200, "epochs": 1_000, "checkpoint_every_steps": 200}
    disk.leave(2 * PAGE)  # one for the orders, and one for the log
    with pytest.raises(SystemExit) as ended:
        run_trainer(orders, str(disk.path / "attempt"))
    assert ended.value.code == EXIT_DISK_FULL
    folder = disk.path / "attempt"
    log = (folder / "events.jsonl").read_text()
    assert PAGE - 400 < len(log) <= PAGE
    assert log.endswith("}\n")
    assert all(json.loads(line)["kind"] for line in log.splitlines())
    assert names(folder) == ["events.jsonl", "run.json"]


@pytest.mark.slow
def test_told_to_stop_without_room_to_save_it_is_interrupted_and_not_failed(
    orders: Any, disk: SmallDisk, fork_trainer: Any, result_of: ResultOf
) -> None:
    points = fork_trainer(orders, "counted", signal=None, within="step")
    assert points.wait() == 0
    count = len(points.folder.with_suffix(".points").read_text().splitlines())
    disk.leave(CHECKPOINT_BYTES + 10 * PAGE)
    stopped = fork_trainer(orders, str(disk.path / "stopped"), signal="SIGTERM", within="step", at=count * 7 // 8)
    assert stopped.wait() == 0
    assert result_of(stopped.folder) == {"status": "interrupted"}
    saved = newest_whole(stopped.folder / "checkpoints")
    assert saved is not None and saved.step == 2
    assert [path.name for path in (stopped.folder / "checkpoints").iterdir()] == ["step-000002"]
