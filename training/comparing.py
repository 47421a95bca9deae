"""Runs side by side: what differs in how they were asked for, in what they learn from, and in what came of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from common.errors import Invalid
from training.models import TrainingRun
from training.trainer.config import TrainingConfig

MOST_RUNS = 10
_MEASURED = (
    "tokens",
    "first_loss",
    "test_loss",
    "base_test_loss",
    "skipped_steps",
    "stopped_early",
    "best_step",
    "seconds",
)
"""Figures of a run's result; what a run that goes on has as well is read from its row."""


class Area(Enum):
    CONFIG = "CONFIG"
    DATA = "DATA"
    RESULT = "RESULT"


@dataclass(frozen=True)
class Difference:
    """A figure or choice that is not the same in all runs; `values` are theirs, in their order, None for one without."""

    area: Area
    name: str
    values: list[Any]


def differences(runs: Sequence[TrainingRun]) -> list[Difference]:
    """In the order of a config's fields, then of the data, then of the results. Runs with their versions and datasets.

    Raises Invalid for none, and for more than MOST_RUNS.
    """
    if not 1 <= len(runs) <= MOST_RUNS:
        raise Invalid(f"From 1 to {MOST_RUNS} runs are compared.", field="ids")
    sides = [list(_said_of(run)) for run in runs]
    values = [{(area, name): value for area, name, value in side} for side in sides]
    keys = dict.fromkeys(sorted({key for side in values for key in side}, key=_order_of(values)))
    return [
        Difference(area, name, [side.get((area, name)) for side in values])
        for area, name in keys
        if len({_comparable(side.get((area, name))) for side in values}) > 1
    ]


def _said_of(run: TrainingRun) -> Iterator[tuple[Area, str, Any]]:
    yield Area.CONFIG, "base_model", run.base_model_name
    yield Area.CONFIG, "base_model_revision", run.base_model_revision
    for field in fields(TrainingConfig):  # JSON in PostgreSQL has an order of its own
        yield Area.CONFIG, field.name, run.config.get(field.name)
    version = run.dataset_version
    yield Area.DATA, "dataset", version.dataset.name
    yield Area.DATA, "version", version.number
    yield Area.DATA, "fingerprint", version.fingerprint
    for split in version.splits:
        yield Area.DATA, f"{str(split['name']).lower()}_rows", split["rows"]
    yield Area.RESULT, "status", run.status
    for name in ("step", "total_steps", "loss", "eval_loss", "tokens_per_second"):
        yield Area.RESULT, name, getattr(run, name)
    measured = run.result or {}
    for name in _MEASURED:
        yield Area.RESULT, name, measured.get(name)
    for name, value in measured.get("environment", {}).items():
        yield Area.RESULT, f"environment_{name}", value


def _order_of(values: Sequence[dict[tuple[Area, str], Any]]) -> Any:
    areas, first = list(Area), [key for side in values for key in side]
    return lambda key: (areas.index(key[0]), first.index(key))


def _comparable(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
