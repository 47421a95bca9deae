"""A run in two processes: the same steps and weights as in one, and no process that outlives its run."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from tests.training.test_early_stopping import ever_worse
from training.trainer.checkpoint import newest_whole

torch = pytest.importorskip("torch")

REPOSITORY = Path(__file__).parents[2]
LOST = "Process 2 of the 2 that share the run came to an end (killed by SIGKILL)"
PATIENCE_S = 180.0

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]

pytestmark = pytest.mark.faults


class Started:
    """A trainer in a process group of its own, which starts its second process itself."""

    def __init__(self, folder: Path, orders: dict[str, Any]) -> None:
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(orders))
        self.folder = folder
        with (folder / "child.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "training.trainer", str(folder)],
                cwd=REPOSITORY,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def other(self) -> psutil.Process:
        """Its second process, once it has been started."""
        until(lambda: bool(psutil.Process(self.process.pid).children()))
        (other,) = psutil.Process(self.process.pid).children()
        return other

    def wait(self) -> int:
        return self.process.wait(PATIENCE_S)

    def log(self) -> str:
        return (self.folder / "child.log").read_text(errors="replace")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[dict[str, Any], str], Started]]:
    started: list[Started] = []

    def begin(orders: dict[str, Any], name: str) -> Started:
        started.append(Started(tmp_path / name, orders))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def orders(orders: dict[str, Any]) -> dict[str, Any]:
    """Six steps of four rows each, with a checkpoint after every step, in two processes."""
    orders["config"] |= {"batch_size": 4, "gradient_accumulation": 1, "packing": False, "lora_dropout": 0.0}
    orders["config"] |= {"checkpoint_every_steps": 1, "keep_checkpoints": 6}
    return {**orders, "processes": 2}


@pytest.fixture
def long_orders(orders: dict[str, Any]) -> dict[str, Any]:
    """A run that goes on for longer than any test, with dropout."""
    orders["config"] |= {"epochs": 1_000, "max_steps": 9_000, "eval_every_steps": 9_000, "lora_dropout": 0.1}
    orders["config"] |= {"checkpoint_every_steps": 9_000, "scheduler": "CONSTANT", "warmup_ratio": 0.0}
    return orders


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "It never came that far."
        time.sleep(0.02)


def until_it_steps(folder: Path, events_of: EventsOf) -> None:
    until(lambda: (folder / "events.jsonl").exists() and bool(events_of(folder, "StepLogged")))


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def losses_of(folder: Path) -> list[float]:
    """Of each step, as its checkpoint has it."""
    states = sorted((folder / "checkpoints").glob("step-*/state.json"))
    return [json.loads(state.read_text())["progress"]["last_loss"] for state in states]


def test_two_processes_with_half_of_each_steps_rows_learn_what_one_with_all_of_them_does(
    orders: dict[str, Any], start: Any, run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    both = start(orders, "both")
    assert both.wait() == 0, both.log()
    alone = run_trainer({**orders, "processes": 1}, "alone")
    two, one = result_of(both.folder), result_of(alone)
    assert (two["processes"], one["processes"]) == (2, 1)
    assert (two["steps"], two["tokens"]) == (one["steps"], one["tokens"])
    assert len(losses_of(both.folder)) == 6
    assert losses_of(both.folder) == pytest.approx(losses_of(alone), rel=1e-5)
    for name in ("first_loss", "eval_loss", "test_loss"):
        assert two[name] == pytest.approx(one[name], rel=1e-5), name
    weights, expected = (load_file(folder / "adapter/adapter_model.safetensors") for folder in (both.folder, alone))
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5)
    assert [event["step"] for event in events_of(both.folder, "Evaluated")] == [3, 6]
    others = both.folder / "processes/1"
    assert json.loads((others / "result.json").read_text()) == {"status": "succeeded"}
    assert not (others / "checkpoints").exists() and not (others / "adapter").exists()


@pytest.mark.slow
def test_when_the_other_process_dies_the_first_one_ends_without_a_result_and_nothing_is_left(
    long_orders: dict[str, Any], start: Any, events_of: EventsOf
) -> None:
    """So its supervisor has it tried again, as where the first one has died."""
    run = start(long_orders, "run")
    until_it_steps(run.folder, events_of)
    other = run.other()
    other.kill()
    assert run.wait() == 1, run.log()
    assert not (run.folder / "result.json").exists() and not (run.folder / "adapter").exists()
    assert events_of(run.folder, "LogLine")[-1]["text"] == LOST
    assert f"ProcessLost: {LOST}" in run.log()
    assert is_gone(other)


@pytest.mark.slow
def test_when_the_other_process_dies_before_the_first_step_the_first_one_ends_without_a_result(
    long_orders: dict[str, Any], start: Any
) -> None:
    run = start(long_orders, "run")
    run.other().kill()
    assert run.wait() == 1, run.log()
    assert not (run.folder / "result.json").exists()
    assert f"ProcessLost: {LOST}" in run.log()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["the first", "the other"])
def test_whichever_is_killed_the_next_attempt_stops_at_the_same_step_with_the_same_adapter(
    which: str, orders: dict[str, Any], tmp_path: Path, start: Any, result_of: ResultOf, events_of: EventsOf
) -> None:
    """After its best step, whose adapter is in the checkpoints of those that follow."""
    orders = ever_worse(orders, tmp_path)
    orders["config"] |= {"max_steps": 1_000, "epochs": 1_000, "early_stopping_patience": 40, "keep_checkpoints": 1}
    straight = start(orders, "straight")
    assert straight.wait() == 0, straight.log()
    expected = result_of(straight.folder)
    assert (expected["stopped_early"], expected["processes"]) == (True, 2)

    killed = start(orders, "killed")
    other = killed.other()
    until_it_steps(killed.folder, events_of)
    until(lambda: any(e["step"] > expected["best_step"] for e in events_of(killed.folder, "CheckpointSaved")))
    (killed.process if which == "the first" else other).kill()
    assert killed.wait() == (-signal.SIGKILL if which == "the first" else 1), killed.log()
    until(lambda: is_gone(other))
    assert not (killed.folder / "result.json").exists()
    saved = newest_whole(killed.folder / "checkpoints")
    assert saved is not None and (saved.folder / "best_model.safetensors").exists()
    again = start({**orders, "resume_from": str(saved.folder)}, "again")
    assert again.wait() == 0, again.log()
    for name in ("adapter", "steps", "stopped_early", "best_step", "best_eval_loss", "test_loss"):
        assert result_of(again.folder)[name] == expected[name], name


@pytest.mark.slow
def test_an_error_that_only_the_other_process_has_is_the_runs(
    long_orders: dict[str, Any], start: Any, result_of: ResultOf, events_of: EventsOf
) -> None:
    run = start(long_orders, "run")
    until_it_steps(run.folder, events_of)
    failed = {"status": "failed", "code": "OUT_OF_MEMORY", "message": "Memory did not suffice."}
    (run.folder / "processes/1/result.json").write_text(json.dumps(failed))  # as it would have left it
    run.other().kill()
    assert run.wait() == 0, run.log()
    assert result_of(run.folder) == failed


@pytest.mark.slow
def test_told_to_stop_all_end_and_one_process_or_two_go_on_from_the_checkpoint(
    long_orders: dict[str, Any], start: Any, result_of: ResultOf, events_of: EventsOf
) -> None:
    stopped = start(long_orders, "stopped")
    until_it_steps(stopped.folder, events_of)
    other = stopped.other()
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.wait() == 0, stopped.log()
    assert result_of(stopped.folder) == {"status": "interrupted"}
    assert is_gone(other)
    saved = newest_whole(stopped.folder / "checkpoints")
    assert saved is not None and saved.step >= 1

    long_orders["config"] |= {"max_steps": saved.step + 3}
    straight = start(long_orders, "straight")
    assert straight.wait() == 0, straight.log()
    again = {**long_orders, "resume_from": str(saved.folder)}
    resumed, alone = start(again, "resumed"), start({**again, "processes": 1}, "alone")
    for each in (resumed, alone):
        assert each.wait() == 0, each.log()
    assert result_of(resumed.folder)["adapter"] == result_of(straight.folder)["adapter"]
    assert result_of(alone.folder)["steps"] == saved.step + 3


@pytest.mark.slow
def test_when_the_first_process_is_killed_the_other_one_ends(
    long_orders: dict[str, Any], start: Any, events_of: EventsOf
) -> None:
    run = start(long_orders, "run")
    until_it_steps(run.folder, events_of)
    other = run.other()
    run.process.kill()  # it alone, and not its group
    assert run.wait() == -signal.SIGKILL
    until(lambda: is_gone(other))


def test_the_shares_of_a_step_are_its_rows_once_each_whatever_each_process_has_halved() -> None:
    import numpy as np

    from training.trainer.batches import Sampler
    from training.trainer.config import TrainingConfig

    lengths = np.random.default_rng(1).integers(4, 64, 101)
    for packing in (True, False):
        config = TrainingConfig(epochs=1, batch_size=5, gradient_accumulation=2, packing=packing)
        sampler = Sampler(lengths, config, 64)
        for step in range(sampler.total_steps):
            whole = np.concatenate(sampler.rows(step)).tolist()
            shares = [sampler.rows(step, halvings, process, 3) for process, halvings in enumerate((0, 2, 1))]
            assert sorted(row for share in shares for part in share for row in part.tolist()) == sorted(whole)
