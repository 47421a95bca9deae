"""How much more often something holds among some rows than among others, and how sure that is.

The interval of the ratio of two shares is the score interval of Koopman, Confidence Intervals for the Ratio of Two Binomial
Proportions (Biometrics 40, 1984): all ratios R that the test below does not refuse. Unlike the one on the logarithmic scale
it holds where something never occurred. With a of n rows, and c of m others:

    z^2 = (a/n - R c/m)^2 / (p (1 - p) / n + R^2 q (1 - q) / m)     where p = R q, and q is the likeliest under R:
    (n + m) R q^2 - (R n + a + m + R c) q + a + c = 0               (Miettinen and Nurminen, Statistics in Medicine 4, 1985)

The ratio itself has half an observation more in each count, so that there is always one:

    ratio = ((a + 1/2) / (n + 1/2)) / ((c + 1/2) / (m + 1/2))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Z = 3.2905  # of 99.9 %: dozens of ratios are looked at, and one in twenty of them would be too many
MIN_ROWS = 50
MIN_EVENTS = 10
FURTHEST = 1e6
HALVINGS = 60


@dataclass(frozen=True)
class RateRatio:
    """`hits` of `rows`, as against `other_hits` of `other_rows`."""

    hits: int
    rows: int
    other_hits: int
    other_rows: int

    @property
    def ratio(self) -> float:
        return ((self.hits + 0.5) / (self.rows + 0.5)) / ((self.other_hits + 0.5) / (self.other_rows + 0.5))

    @property
    def interval(self) -> tuple[float, float | None]:
        """Holds the true ratio with a probability of 99.9 %; without an upper end, where none of the others hit."""
        seen = (self.hits / self.rows) / (self.other_hits / self.other_rows) if self.other_hits else FURTHEST
        low = self._bound(seen, 1 / FURTHEST) if self.hits else 0.0
        return low, self._bound(max(seen, 1 / FURTHEST), FURTHEST) if self.other_hits else None

    def _bound(self, inside: float, outside: float) -> float:
        """Where the test begins to refuse, on the way from one ratio to the other."""
        inside, outside = math.log(inside), math.log(outside)
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            if self._z2(math.exp(middle)) > Z * Z:
                outside = middle
            else:
                inside = middle
        return math.exp(inside)

    def _z2(self, ratio: float) -> float:
        a, n, c, m = self.hits, self.rows, self.other_hits, self.other_rows
        square, linear = (n + m) * ratio, ratio * n + a + m + ratio * c
        q = (linear - math.sqrt(max(linear * linear - 4 * square * (a + c), 0))) / (2 * square)
        p = ratio * q
        variance = p * (1 - p) / n + ratio * ratio * q * (1 - q) / m
        difference = a / n - ratio * c / m
        return difference * difference / variance if variance > 0 else (math.inf if difference else 0.0)

    @property
    def says_something(self) -> bool:
        return min(self.rows, self.other_rows) >= MIN_ROWS and self.hits + self.other_hits >= MIN_EVENTS

    def to_json(self) -> dict[str, Any]:
        """Without the ratio where there are too few rows for one."""
        told: dict[str, Any] = {"rows": self.hits, "rate": share(self.hits, self.rows)}
        told["others_rate"] = share(self.other_hits, self.other_rows)
        if not self.says_something:
            return {**told, "ratio": None, "low": None, "high": None}
        low, high = self.interval
        return {**told, "ratio": round(self.ratio, 3), "low": round(low, 3), "high": high and round(high, 3)}


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
