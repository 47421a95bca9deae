"""What is promised under load, and whether it was kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from benchmarks.harness import shown
from benchmarks.soak.gauges import COUNTS, Sample
from benchmarks.soak.records import Figures

MIN_PER_SECOND = 80.0
MAX_P95_S = 0.25
MAX_ERROR_SHARE = 0.001
MAX_NEIGHBOUR_RATIO = 1.25
MAX_MB_PER_HOUR = 1.0
SLOPE_NEEDS_S = 1200.0  # of a few minutes an hour's growth is a guess


@dataclass(frozen=True)
class Promise:
    """A figure and its limit: what it has to reach where `is_floor`, else what it must not exceed."""

    value: float
    limit: float
    is_floor: bool = False
    is_judged: bool = True

    @property
    def is_kept(self) -> bool:
        return not self.is_judged or (self.value >= self.limit if self.is_floor else self.value <= self.limit)

    @property
    def verdict(self) -> str:
        return "too short to tell" if not self.is_judged else "ok" if self.is_kept else "MISSED"

    def line(self, name: str) -> str:
        bound = f"at {'least' if self.is_floor else 'most'} {shown(self.limit)}"
        return f"  {self.verdict:18} {name} {shown(self.value)}, {bound}"


def promises(
    steady: Figures,
    whole: Figures,
    alone: Figures,
    beside_noise: Figures,
    slopes: Mapping[str, float],
    steady_s: float,
) -> dict[str, Promise]:
    """`whole` is all of the tenants' load, `alone` that without a neighbour; memory is judged by the process that grows fastest."""
    return {
        "requests_per_second": Promise(steady.per_second, MIN_PER_SECOND, is_floor=True),
        "p95_s": Promise(steady.p95_s, MAX_P95_S),
        "error_share": Promise(whole.error_share, MAX_ERROR_SHARE),
        "p95_beside_a_noisy_tenant": Promise(beside_noise.p95_s / alone.p95_s, MAX_NEIGHBOUR_RATIO),
        "memory_mb_per_hour": Promise(max(slopes.values()), MAX_MB_PER_HOUR, is_judged=steady_s >= SLOPE_NEEDS_S),
    }


def left_behind(before: Sample, after: Sample) -> dict[str, Promise]:
    """What there was before the load, and after it, is to be the same, or less; descriptors of those that were there both times."""
    descriptors = sum(more for _, more in more_descriptors(before, after))
    counted = {f"{name}_left": Promise(after.counts[name] - before.counts[name], 0) for name in COUNTS}
    return {"descriptors_left": Promise(descriptors, 0), **counted}


def more_descriptors(before: Sample, after: Sample) -> list[tuple[str, int]]:
    """(role, how many more) of those processes that have more or less than before."""
    stayed = sorted(before.descriptors.keys() & after.descriptors.keys())
    more = [(process[0], after.descriptors[process] - before.descriptors[process]) for process in stayed]
    return [(role, number) for role, number in more if number]


def slopes(samples: Sequence[Sample]) -> dict[str, float]:
    """MB an hour, by role, of those that were there all the time."""
    roles = set.intersection(*(set(sample.rss_mb) for sample in samples)) if samples else set()
    at = [sample.at for sample in samples]
    return {role: 3600 * slope(at, [sample.rss_mb[role] for sample in samples]) for role in sorted(roles)}


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line through the points with the least squares; 0 where they have no width."""
    middle_x, middle_y = fmean(x), fmean(y)
    width = sum((each - middle_x) ** 2 for each in x)
    return sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True)) / width if width else 0.0
