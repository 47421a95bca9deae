"""What an operator sees of a run: its curves, and what it was asked for, as parts of the admin's page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.template.loader import render_to_string

from training.curves import Curve, curves
from training.models import TrainingRun

WIDTH, HEIGHT = 330, 120  # two beside each other
POINTS = 2 * WIDTH  # a spike has a lowest and a highest point
PANELS = {
    "Loss": ("loss", "evalLoss"),
    "Learning rate": ("learningRate",),
    "Gradient norm": ("gradNorm",),
    "Tokens a second": ("tokensPerSecond",),
    "Memory in bytes": ("memoryBytes",),
}
WORDS = {"loss": "training", "evalLoss": "validation"}
COLOURS = ("#6366f1", "#dc2626")


@dataclass(frozen=True)
class Scale:
    """From steps and values to places in a drawing, in pixels from its upper left corner."""

    first: int
    last: int
    low: float
    high: float

    @classmethod
    def of(cls, drawn: Sequence[Curve]) -> Scale:
        steps = [step for curve in drawn for step in curve.steps]
        values = [value for curve in drawn for value in curve.values if value is not None]
        return cls(min(steps), max(steps), min(values), max(values))

    def place(self, step: int, value: float) -> tuple[float, float]:
        """A single step, and a value that never changes, stand in the middle."""
        along = (step - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        up = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(along * WIDTH, 1), round((1 - up) * HEIGHT, 1)


def drawn(run: TrainingRun) -> str:
    """The run's curves, each with its range; a run of which nothing was logged has none."""
    found = {
        curve.name: curve for curve in curves(run.pk, [name for names in PANELS.values() for name in names], POINTS)
    }
    panels = [panel(title, [found[name] for name in names]) for title, names in PANELS.items()]
    context = {"panels": [each for each in panels if each], "width": WIDTH, "height": HEIGHT}
    return render_to_string("admin/training/run_curves.html", context)


def panel(title: str, shown: Sequence[Curve]) -> dict[str, Any] | None:
    """A drawing of curves that share their scale; None where there is nothing to draw."""
    finite = [curve for curve in shown if any(value is not None for value in curve.values)]
    if not finite:
        return None
    scale = Scale.of(finite)
    lines = [
        {
            "name": WORDS.get(curve.name, ""),
            "colour": COLOURS[number % len(COLOURS)],
            "stretches": [_written(stretch) for stretch in _stretches(curve, scale)],
            "newest": next(value for value in reversed(curve.values) if value is not None),
        }
        for number, curve in enumerate(finite)
    ]
    return {"title": title, "lines": lines, "scale": scale, "low": f"{scale.low:.4g}", "high": f"{scale.high:.4g}"}


def _stretches(curve: Curve, scale: Scale) -> Iterator[list[tuple[float, float]]]:
    """The points between which a line may be drawn: where a value was not finite there is a gap."""
    stretch: list[tuple[float, float]] = []
    for step, value in zip(curve.steps, curve.values, strict=True):
        if value is None:
            if stretch:
                yield stretch
            stretch = []
        else:
            stretch.append(scale.place(step, value))
    if stretch:
        yield stretch


def _written(stretch: list[tuple[float, float]]) -> str:
    """As a polyline has them. A line from a point to itself has round ends: one point is a dot."""
    return " ".join(f"{x:g},{y:g}" for x, y in (stretch if len(stretch) > 1 else 2 * stretch))
