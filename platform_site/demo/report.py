"""What the demo measured, as var/demo/report.json."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class DatasetFigures:
    rows_in: int
    rows_kept: int
    rejected: int
    splits: dict[str, int]  # rows of TRAIN, VALIDATION, and TEST


@dataclass(frozen=True)
class TrainingFigures:
    steps: int
    tokens: int
    tokens_per_second: float  # while it took optimizer steps
    first_loss: float  # mean of the first twentieth of the logged steps, in nats a supervised token
    last_loss: float  # of the last twentieth
    seconds: float  # from its first attempt's begin to its end, scoring included


@dataclass(frozen=True)
class EvaluationFigures:
    """Mean loss per supervised token of the same test rows; None where the data is too small for a test split."""

    base_test_loss: float | None
    adapter_test_loss: float | None

    @property
    def change(self) -> float | None:
        """The adapter's loss against the base's: -0.29 is 29 % lower."""
        if not self.base_test_loss or self.adapter_test_loss is None:
            return None
        return self.adapter_test_loss / self.base_test_loss - 1


@dataclass(frozen=True)
class Answers:
    prompt: str
    base: str
    adapter: str
    adapter_digest: str


@dataclass(frozen=True)
class Seconds:
    setup: float  # until the platform was ready, installation included where make did it
    total: float


@dataclass(frozen=True)
class Report:
    dataset: DatasetFigures
    training: TrainingFigures
    evaluation: EvaluationFigures
    predictions: list[Answers]
    seconds: Seconds

    def write(self, path: Path) -> None:
        """Whole or not at all."""
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        beside.replace(path)
