"""What happens when: a soak's parts, in seconds of the machine's clock."""

from __future__ import annotations

from dataclasses import dataclass

Span = tuple[float, float]
QUIET_S = 30.0  # nobody asks for anything: what the warm-up has queued ends, and then the platform is looked at


@dataclass(frozen=True)
class Timeline:
    """Warm-up, a quiet moment, the steady load, and then a neighbour who asks for all they may, and for ten times as much.

    Before the two, and after them, the load is alone for as long.
    """

    begin: float
    steady_s: float

    @property
    def warm_up(self) -> Span:
        return self.begin, self.begin + max(20.0, min(300.0, self.steady_s / 6))

    @property
    def quiet(self) -> Span:
        return self.warm_up[1], self.warm_up[1] + QUIET_S

    @property
    def steady(self) -> Span:
        return self.quiet[1], self.quiet[1] + self.steady_s

    @property
    def before_neighbour(self) -> Span:
        return self.steady[1], self.steady[1] + self._side_s

    @property
    def within_quota(self) -> Span:
        return self.before_neighbour[1], self.before_neighbour[1] + 2 * self._side_s

    @property
    def noise(self) -> Span:
        """Long enough for what a minute allows to be spent, and for the rest to be refused."""
        return self.within_quota[1], self.within_quota[1] + 2 * self._side_s

    @property
    def after_neighbour(self) -> Span:
        return self.noise[1], self.noise[1] + self._side_s

    @property
    def end(self) -> float:
        return self.after_neighbour[1]

    @property
    def busy(self) -> list[Span]:
        """When the tenants' load is on."""
        return [self.warm_up, (self.steady[0], self.end)]

    @property
    def _side_s(self) -> float:
        return max(30.0, self.steady_s / 30)


def is_within(moment: float, span: Span) -> bool:
    return span[0] <= moment < span[1]
