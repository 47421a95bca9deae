"""What the trainer says of its own course: how long it still takes, and the most memory that it had."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.models import TrainingRun


def test_each_step_says_how_long_the_rest_takes_and_the_result_its_peak(
    orders: dict[str, Any],
    run_trainer: Callable[..., Path],
    result_of: Callable[[Path], dict[str, Any]],
    events_of: Callable[[Path, str], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from training.trainer import fit

    monkeypatch.setattr(fit, "LOG_EVERY_S", 0.0)
    folder = run_trainer(orders)
    steps = events_of(folder, "StepLogged")
    assert [event["step"] for event in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1]["eta_seconds"] == 0
    assert all(event["eta_seconds"] > 0 for event in steps[:-1])
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 100_000_000 < result_of(folder)["peak_memory_bytes"] <= used
    steps[0] |= {"eta_seconds": 7.5}
    assert TrainingRun.follows_from(steps[:1])["eta_seconds"] == 7.5
    assert TrainingRun.follows_from([{"kind": "StepLogged", "step": 1}]) == {"step": 1}
