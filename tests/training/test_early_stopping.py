"""Runs that end for want of a better validation loss, and leave the adapter of the best validated step."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from training.trainer.checkpoint import newest_whole

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]


@pytest.fixture
def orders(orders: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return ever_worse(orders, tmp_path)


def ever_worse(orders: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Up to 20 steps, validated after every second, on rows that the training only makes less likely.

    The rate stays the same, so that a run of two steps ends with the weights that a longer one has after its second.
    """
    orders["config"] |= {"max_steps": 20, "epochs": 100, "scheduler": "CONSTANT", "warmup_ratio": 0.0}
    orders["config"] |= {"learning_rate": 0.02, "eval_every_steps": 2, "checkpoint_every_steps": 3}
    path = tmp_path / "validation.parquet"
    rows = [{"prompt": f"{i} + {i} = ", "completion": f"~{2 * i}?!{i}~"} for i in range(8)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return {**orders, "data": {**orders["data"], "validation": [str(path)]}}


@pytest.fixture
def two_steps(orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf) -> dict[str, Any]:
    """The result of a run that had no more steps than the best one."""
    return result_of(run_trainer({**orders, "config": orders["config"] | {"max_steps": 2}}, "two-steps"))


def texts(events: list[dict[str, Any]]) -> list[str]:
    return [event["text"] for event in events if event["kind"] == "LogLine"]


def test_where_no_validation_is_better_than_the_first_the_run_ends_and_leaves_that_steps_adapter(
    orders: dict[str, Any],
    two_steps: dict[str, Any],
    run_trainer: RunTrainer,
    result_of: ResultOf,
    events_of: EventsOf,
) -> None:
    orders["config"]["early_stopping_patience"] = 2
    folder = run_trainer(orders)
    result = result_of(folder)
    assert {name: result[name] for name in ("status", "steps", "total_steps", "stopped_early", "best_step")} == {
        "status": "succeeded",
        "steps": 6,
        "total_steps": 20,
        "stopped_early": True,
        "best_step": 2,
    }
    evaluations = events_of(folder, "Evaluated")
    assert [event["step"] for event in evaluations] == [2, 4, 6]
    losses = [event["eval_loss"] for event in evaluations]
    assert losses[0] < min(losses[1:])
    assert result["eval_loss"] == result["best_eval_loss"] == losses[0] == two_steps["eval_loss"]
    assert result["adapter"] == two_steps["adapter"]
    assert result["test_loss"] == two_steps["test_loss"]
    assert texts(events_of(folder, "LogLine"))[-3:-1] == [
        f"Stopping early after step 6 of 20: 2 validations in a row found no loss below the {losses[0]:.4f} of step 2",
        f"The adapter is that of step 2, whose validation loss was the best ({losses[0]:.4f}, and {losses[2]:.4f} "
        "after step 6)",
    ]
    last = events_of(folder, "StepLogged")[-1]
    assert (last["step"], last["total_steps"], last["tokens"]) == (6, 20, result["tokens"])
    assert [event["step"] for event in events_of(folder, "CheckpointSaved")] == [3, 6]
    card = (folder / "adapter/README.md").read_text()
    assert "| early_stopping_patience | 2 |" in card and "| best_step | 2 |" in card


def test_going_on_from_before_or_after_the_early_end_leaves_the_same_adapter(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"]["early_stopping_patience"] = 2
    straight = run_trainer(orders, "straight")
    for step, validated in ((3, [4, 6]), (6, [])):
        saved = straight / f"checkpoints/step-{step:06d}"
        assert (saved / "best_model.safetensors").is_file()
        resumed = run_trainer({**orders, "resume_from": str(saved)}, f"resumed-{step}")
        for name in ("adapter", "steps", "stopped_early", "best_step", "best_eval_loss", "eval_loss", "test_loss"):
            assert result_of(resumed)[name] == result_of(straight)[name], name
        assert [event["step"] for event in events_of(resumed, "Evaluated")] == validated


def test_a_run_that_stopped_early_goes_on_with_new_patience_where_it_is_given_more_steps(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"]["early_stopping_patience"] = 2
    straight = run_trainer(orders, "straight")
    orders["config"]["max_steps"] = 30
    longer = run_trainer({**orders, "resume_from": str(straight / "checkpoints/step-000006")}, "longer")
    result = result_of(longer)
    assert (result["steps"], result["total_steps"], result["stopped_early"]) == (10, 30, True)
    assert [event["step"] for event in events_of(longer, "Evaluated")] == [8, 10]
    assert result["adapter"] == result_of(straight)["adapter"]


def test_patience_that_ran_out_with_the_last_step_is_new_for_further_steps(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    orders["config"] |= {"early_stopping_patience": 2, "max_steps": 6}
    straight = run_trainer(orders, "straight")
    assert (result_of(straight)["steps"], result_of(straight)["stopped_early"]) == (6, False)
    orders["config"]["max_steps"] = 30
    longer = result_of(run_trainer({**orders, "resume_from": str(straight / "checkpoints/step-000006")}, "longer"))
    assert (longer["steps"], longer["stopped_early"], longer["best_step"]) == (10, True, 2)


def test_patience_that_never_runs_out_leaves_the_best_steps_adapter_after_the_last_step(
    orders: dict[str, Any], two_steps: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    orders["config"] |= {"max_steps": 6, "early_stopping_patience": 1_000, "keep_checkpoints": 1}
    folder = run_trainer(orders)
    result = result_of(folder)
    assert (result["steps"], result["total_steps"], result["stopped_early"], result["best_step"]) == (6, 6, False, 2)
    assert result["adapter"] == two_steps["adapter"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-000006"]


def test_without_patience_the_adapter_is_the_last_steps_and_the_best_one_is_told(
    orders: dict[str, Any],
    two_steps: dict[str, Any],
    run_trainer: RunTrainer,
    result_of: ResultOf,
    events_of: EventsOf,
) -> None:
    orders["config"]["max_steps"] = 6
    folder = run_trainer(orders)
    result, evaluations = result_of(folder), events_of(folder, "Evaluated")
    assert (result["stopped_early"], result["best_step"]) == (False, 2)
    assert result["best_eval_loss"] == evaluations[0]["eval_loss"]
    assert result["eval_loss"] == evaluations[2]["eval_loss"]
    assert result["adapter"]["digest"] != two_steps["adapter"]["digest"]
    assert not list(folder.rglob("best_model.safetensors"))


def test_where_the_best_step_is_the_last_its_own_weights_are_all_that_a_checkpoint_has(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    orders["config"] |= {"max_steps": 2, "early_stopping_patience": 1, "checkpoint_every_steps": 2}
    straight = run_trainer(orders, "straight")
    saved = straight / "checkpoints/step-000002"
    assert not (saved / "best_model.safetensors").exists()
    orders["config"]["max_steps"] = 4
    longer = result_of(run_trainer({**orders, "resume_from": str(saved)}, "longer"))
    assert (longer["steps"], longer["best_step"]) == (4, 2)
    assert longer["adapter"] == result_of(straight)["adapter"]


def test_without_validation_rows_patience_is_told_to_be_useless(
    orders: dict[str, Any], run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    orders["config"] |= {"max_steps": 2, "early_stopping_patience": 1}
    folder = run_trainer({**orders, "data": {**orders["data"], "validation": []}})
    result = result_of(folder)
    assert (result["steps"], result["stopped_early"], result["best_step"]) == (2, False, None)
    warnings = [event["text"] for event in events_of(folder, "LogLine") if event["level"] == "WARNING"]
    assert warnings == ["There are no validation rows: the run cannot stop early, and leaves its last step's adapter"]


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.parametrize(("within", "share"), [("save", 0.3), ("save", 0.8), ("validate", 0.5), ("step", 0.5)])
def test_killed_on_the_way_it_stops_at_the_same_step_with_the_same_adapter(
    within: str, share: float, orders: dict[str, Any], fork_trainer: Any, result_of: ResultOf
) -> None:
    orders["config"] |= {"early_stopping_patience": 2, "keep_checkpoints": 1}
    straight = fork_trainer(orders, "straight", signal=None, within=within)
    assert straight.wait() == 0
    points = len(straight.folder.with_suffix(".points").read_text().splitlines())
    killed = fork_trainer(orders, "killed", signal="SIGKILL", within=within, at=1 + round(share * (points - 1)))
    assert killed.wait() == -signal.SIGKILL
    saved = newest_whole(killed.folder / "checkpoints")
    again = fork_trainer({**orders, "resume_from": saved and str(saved.folder)}, "again")
    assert again.wait() == 0
    for name in ("adapter", "steps", "stopped_early", "best_step", "eval_loss"):
        assert result_of(again.folder)[name] == result_of(straight.folder)[name], name
