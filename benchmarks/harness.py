"""What every benchmark is held to: alternating rounds, per-round ratios with their interval, checks, limits, one report."""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import psutil

from platform_site.engines.place import ROOT

ROUNDS = 6  # the fewest whose lowest and highest value enclose the median with 95 % confidence
RESULTS = ROOT / "var" / "benchmarks"

T = TypeVar("T")


def alternated(contenders: Sequence[T], rounds: int = ROUNDS) -> Iterator[tuple[int, T]]:
    """(round, contender) as A B, B A, A B, ...: a machine that gets slower meanwhile is no one's advantage."""
    for number in range(rounds):
        yield from ((number, each) for each in (contenders if number % 2 == 0 else reversed(contenders)))


@dataclass(frozen=True)
class Ratio:
    """Ours to a peer's, written so that more is better: the median of the rounds and its 95 % interval."""

    median: float
    low: float
    high: float
    target: float | None

    @classmethod
    def of(cls, per_round: Sequence[float], target: float | None = None) -> Ratio:
        low, high = median_interval(per_round)
        return cls(median(per_round), low, high, target)

    @property
    def is_met(self) -> bool:
        return self.target is None or self.low >= self.target


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The order statistics that enclose the median with at least this confidence, whatever the distribution.

    With fewer values than six, all of them: five reach 94 %.
    """
    ordered, count = sorted(values), len(values)
    below, outside = 0, 0.5**count  # the chance that at most `below` values fall on one side of the median
    while 2 * (further := outside + math.comb(count, below + 1) * 0.5**count) <= 1 - confidence:
        below, outside = below + 1, further
    return ordered[below], ordered[count - 1 - below]


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(frozen=True)
class Limit:
    """An absolute figure, and what it may be at most."""

    value: float
    limit: float

    @property
    def is_kept(self) -> bool:
        return self.value <= self.limit


@dataclass
class Report:
    """A benchmark's outcome; `ratios` are by peer, `ours` are figures without a judgement."""

    name: str
    rounds: int = ROUNDS
    checks: dict[str, bool] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    ratios: dict[str, Ratio] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=dict)
    failed_peers: dict[str, str] = field(default_factory=dict)
    commands: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def passed(self) -> bool:
        return (
            all(self.checks.values())
            and all(ratio.is_met for ratio in self.ratios.values())
            and all(limit.is_kept for limit in self.limits.values())
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "machine": machine(),
            "rounds": self.rounds,
            "checks": self.checks,
            "ours": self.ours,
            "ratios": {peer: asdict(ratio) for peer, ratio in self.ratios.items()},
            "limits": {figure: asdict(limit) for figure, limit in self.limits.items()},
            "failed_peers": self.failed_peers,
            "commands": self.commands,
            "seconds": round(time.monotonic() - self.started, 1),
            "passed": self.passed,
        }

    def publish(self) -> Path:
        """Print it, and write it to var/benchmarks/NAME.json."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        path = RESULTS / f"{self.name}.json"
        path.write_text(json.dumps(self.to_json(), indent=1) + "\n")
        print("\n".join(self._lines()))
        print(path)
        return path

    def _lines(self) -> Iterator[str]:
        yield f"\n{self.name} on {', '.join(f'{value}' for value in machine().values())}, {self.rounds} rounds"
        for peer, command in self.commands.items():
            yield f"  {peer}: {command}"
        for check, kept in self.checks.items():
            yield f"  {'ok    ' if kept else 'BROKEN'} {check}"
        for figure, value in self.ours.items():
            yield f"         {figure} {shown(value)}"
        for figure, limit in self.limits.items():
            yield f"  {'ok    ' if limit.is_kept else 'MISSED'} {figure} {shown(limit.value)}, at most {shown(limit.limit)}"
        for peer, ratio in self.ratios.items():
            target = "" if ratio.target is None else f", at least {shown(ratio.target)}"
            interval = f"{shown(ratio.low)} to {shown(ratio.high)}"
            yield f"  {'ok    ' if ratio.is_met else 'MISSED'} {shown(ratio.median)} times {peer} ({interval}{target})"
        for peer, reason in self.failed_peers.items():
            yield f"  FAILED {peer}: {reason}"
        yield f"  {'passed' if self.passed else 'NOT PASSED'} after {time.monotonic() - self.started:.0f} s"


def shown(value: Any) -> str:
    """Four digits are more than a shared machine can tell."""
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def machine() -> dict[str, str]:
    """What the figures were taken on; the name and address of the machine are nobody's business."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": f"{len(os.sched_getaffinity(0))} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"Python {platform.python_version()}",
    }


def told(**figures: Any) -> None:
    """One line of progress: a benchmark takes minutes."""
    print("  " + "  ".join(f"{name} {shown(value)}" for name, value in figures.items()), flush=True)
