"""What happens to a run that may stop early: it stops at the same step, and leaves the same adapter, as one that nothing happened to."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.small_disk import PAGE, SmallDisk
from tests.training.test_early_stopping import ever_worse
from training.trainer.checkpoint import newest_whole

torch = pytest.importorskip("torch")

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]
WEIGHTS_BYTES = 26_624
SAME = ("adapter", "steps", "stopped_early", "best_step", "best_eval_loss", "eval_loss", "test_loss")

pytestmark = pytest.mark.faults


@pytest.fixture
def orders(orders: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Stops after its sixth step, of which the second was the best. Of its two checkpoints one is kept."""
    orders = ever_worse(orders, tmp_path)
    orders["config"] |= {"early_stopping_patience": 2, "keep_checkpoints": 1}
    return orders


def going_on(orders: dict[str, Any], folder: Path) -> dict[str, Any]:
    """From the newest whole checkpoint that an attempt has left."""
    saved = newest_whole(folder / "checkpoints")
    return {**orders, "resume_from": saved and str(saved.folder)}


def same(result_of: ResultOf, one: Path, other: Path) -> None:
    for name in SAME:
        assert result_of(one)[name] == result_of(other)[name], name


# ------------------------------------------------------------------------------------------------ killed, told to stop


@pytest.fixture
def the_same_after(orders: dict[str, Any], fork_trainer: Any, result_of: ResultOf) -> Callable[..., list[str]]:
    """Send a run a signal at some of the points of a place (0 the first, 1 the last), and finish it from what it left.

    So it is at each call of the functions that are named.
    """

    def check(fault: str, within: str, shares: Sequence[float], calls: Collection[str] = ()) -> list[str]:
        straight = fork_trainer(orders, "straight", signal=None, within=within)
        assert straight.wait() == 0
        assert result_of(straight.folder)["stopped_early"] is True
        points = straight.folder.with_suffix(".points").read_text().splitlines()
        spread = {1 + round(share * (len(points) - 1)) for share in shares}
        assert len(spread) == len(shares), "too few points to choose from"
        places = spread | {at for at, point in enumerate(points, start=1) if point.split()[1] in calls}
        for at in sorted(places):
            hit = fork_trainer(orders, f"hit-{at}", signal=fault, within=within, at=at)
            assert hit.wait() == (0 if fault == "SIGTERM" else -signal.Signals[fault])
            assert hit.folder.with_suffix(".fault").read_text() == points[at - 1]
            again = fork_trainer(going_on(orders, hit.folder), f"again-{at}")
            assert again.wait() == 0
            same(result_of, again.folder, straight.folder)
            kept = [path.name for path in (again.folder / "checkpoints").glob("*")]
            assert kept in (["step-000006"], []), "none where it went on from there"
        return [points[at - 1] for at in sorted(places)]

    return check


def evenly(count: int) -> list[float]:
    return [index / (count - 1) for index in range(count)]


@pytest.mark.slow
def test_killed_at_many_points_of_saves_that_keep_the_best_steps_adapter_too(the_same_after: Any) -> None:
    """Before and after each file of tensors is written (three in each of two saves), and each folder is renamed or removed."""
    killed_at = the_same_after("SIGKILL", "save", evenly(12), calls=("serialize_file", "rename", "rmdir"))
    for call, times in (("serialize_file", 2 * 3), ("rename", 2), ("rmdir", 1)):
        for event in ("c_call", "c_return"):
            assert killed_at.count(f"{event} {call}") >= times


@pytest.mark.slow
@pytest.mark.parametrize("within", ["step", "validate", "save", "leave"])
def test_killed_elsewhere(within: str, the_same_after: Any) -> None:
    the_same_after("SIGKILL", within, [0.1, 0.5, 0.9])


@pytest.mark.slow
@pytest.mark.parametrize("within", ["step", "validate", "save", "score"])
def test_told_to_stop(within: str, the_same_after: Any) -> None:
    """Also amid the samples of a validation, which is then made again as a whole."""
    the_same_after("SIGTERM", within, [0.1, 0.3, 0.5, 0.7, 0.9])


# ------------------------------------------------------------------------------------------------ disks


@pytest.mark.slow
def test_without_room_for_the_best_steps_adapter_it_fails_typed_and_the_checkpoint_before_has_it(
    orders: dict[str, Any], disk: SmallDisk, run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    """Room for one checkpoint with its four files, and most of another."""
    disk.leave(2 * 34 * PAGE - 4 * PAGE)
    folder = run_trainer(orders, str(disk.path / "attempt"))
    result = result_of(folder)
    assert (result["status"], result["code"]) == ("failed", "DISK_FULL")
    assert f"for the checkpoint of step 6: {79_968 + WEIGHTS_BYTES:,} bytes needed" in result["message"]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-000003"]
    assert (folder / "checkpoints/step-000003/best_model.safetensors").is_file()
    disk.make_room()
    straight = run_trainer(orders, "straight")
    same(result_of, run_trainer(going_on(orders, folder), str(disk.path / "again")), straight)


@pytest.mark.parametrize("damage", ["a byte flipped", "a file missing"])
def test_damage_to_the_best_steps_adapter_makes_the_checkpoint_before_it_count(
    damage: str, orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"]["keep_checkpoints"] = 2
    straight = run_trainer(orders, "straight")
    newest = straight / "checkpoints/step-000006"
    best = newest / "best_model.safetensors"
    if damage == "a file missing":
        best.unlink()
    else:
        content = best.read_bytes()
        best.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    resumed = run_trainer({**orders, "resume_from": str(newest)}, "resumed")
    texts = [event["text"] for event in events_of(resumed, "LogLine")]
    assert "step-000006 is damaged; using step-000003" in texts
    same(result_of, resumed, straight)


# ------------------------------------------------------------------------------------------------ numbers


def test_steps_that_are_skipped_for_nan_change_nothing_of_which_is_the_best(
    orders: dict[str, Any],
    run_trainer: RunTrainer,
    result_of: ResultOf,
    events_of: EventsOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.trainer import loss, step

    def poisoned(model: Any, batch: Any) -> Any:
        number = torch.initial_seed() & 0xFFFFFFFF  # what the trainer seeds a step with
        return loss.loss_sum(model, batch) * (float("nan") if number in (3, 4) else 1.0)

    monkeypatch.setattr(step, "loss_sum", poisoned)
    orders["config"]["keep_checkpoints"] = 2
    straight = run_trainer(orders, "straight")
    losses = [event["eval_loss"] for event in events_of(straight, "Evaluated")]
    assert losses[0] == losses[1] < losses[2], "after the fourth step the weights are those of the second"
    result = result_of(straight)
    assert (result["skipped_steps"], result["best_step"], result["steps"]) == (2, 2, 6), "an equal one is no better"
    for at in (3, 6):
        saved = straight / f"checkpoints/step-{at:06d}"
        resumed = run_trainer({**orders, "resume_from": str(saved)}, f"from-{at}")
        same(result_of, resumed, straight)


def test_weights_that_are_not_finite_are_no_success_though_the_best_steps_are(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.optim.AdamW.step

    def overflow(optimizer: Any) -> None:
        real(optimizer)
        tensor = optimizer.param_groups[0]["params"][3]
        if optimizer.state[tensor]["step"] == 5:
            optimizer.state[tensor]["exp_avg"][0, 0] = float("inf")

    monkeypatch.setattr(torch.optim.AdamW, "step", overflow)
    folder = run_trainer(orders)
    result = result_of(folder)
    assert (result["status"], result["code"]) == ("failed", "NUMERICS")
    assert not (folder / "adapter").exists()
    saved = newest_whole(folder / "checkpoints")
    assert saved is not None and saved.step == 3
    progress = json.loads((saved.folder / "state.json").read_text())["progress"]
    assert (progress["best_step"], progress["stopped_of"]) == (2, None)
