"""One seed's choices: what the clients do and which faults come when. The same seed, the same plan."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.faults.scripts import Behaviour, Script

CLIENTS = 3
QUIET_S = 4.0  # no fault before: something has to be under way
CLUSTER_PARTS = ("parent", "sentinel", "pusher", "monitor", "idle worker", "busy worker")
KILLED = (
    *("web", "keeper", "guard web", "guard keeper", "guard datasets", "guard training", "trainer", "pipeline"),
    *(f"{queue} {part}" for queue in ("datasets", "training") for part in CLUSTER_PARTS),
)
TERMINATED = ("web", "keeper", "trainer", "guard datasets", "guard training", "training busy worker")
FILLED = ("attempts", "incoming", "storage", "log")


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how often it comes, whom it may strike, and for how long (from, to, in seconds)."""

    weight: int
    targets: tuple[str, ...] = ("",)
    lasts_s: tuple[float, float] = (0.0, 0.0)


KINDS = {
    "kill": Kind(30, (*KILLED, "training busy worker", "trainer", "training idle worker")),
    "kill-cluster": Kind(4, ("datasets", "training")),
    "kill-all": Kind(3, ("up",), (0.5, 5.0)),
    "stop-all": Kind(3, ("up",), (0.5, 3.0)),
    "pause": Kind(14, KILLED, (2.0, 20.0)),
    "pause-long": Kind(3, ("training busy worker", "trainer", "keeper", "training sentinel"), (50.0, 80.0)),
    "terminate": Kind(8, TERMINATED),
    "redis-restart": Kind(4),
    "redis-flush": Kind(4),
    "redis-away": Kind(4, lasts_s=(3.0, 30.0)),
    "redis-pause": Kind(3, lasts_s=(3.0, 15.0)),
    "postgres-restart": Kind(4),
    "postgres-kill": Kind(4),
    "postgres-away": Kind(4, lasts_s=(3.0, 30.0)),
    "postgres-away-long": Kind(1, lasts_s=(65.0, 80.0)),
    "postgres-pause": Kind(2, lasts_s=(3.0, 15.0)),
    "disk-full": Kind(4, FILLED, (3.0, 15.0)),
    "torn-checkpoint": Kind(5),
    "clock": Kind(4, ("+300", "-300"), (10.0, 30.0)),
    "mail-defers": Kind(3, lasts_s=(5.0, 30.0)),
    "mail-loses": Kind(3, lasts_s=(5.0, 30.0)),
    "mail-down": Kind(3, lasts_s=(5.0, 30.0)),
}


@dataclass(frozen=True)
class PlannedFault:
    at_s: float
    name: str
    target: str
    lasts_s: float

    def __str__(self) -> str:
        lasting = f" for {self.lasts_s:.0f} s" if self.lasts_s else ""
        return f"{self.at_s:5.1f} s  {self.name} {self.target}{lasting}"


@dataclass(frozen=True)
class Plan:
    seed: int
    seconds: float
    faults: tuple[PlannedFault, ...]

    @property
    def moves_clock(self) -> bool:
        return any(fault.name == "clock" for fault in self.faults)

    @property
    def filled(self) -> tuple[str, ...]:
        """The folders that get a small disk of their own."""
        return tuple(sorted({fault.target for fault in self.faults if fault.name == "disk-full"}))

    def random(self, *of: object) -> Random:
        """Chance of one part of the run, whatever the other parts draw."""
        return Random(repr((self.seed, *of)))


def plan(seed: int, seconds: float) -> Plan:
    """3 to 8 faults a minute, between the first seconds and the last."""
    random = Random(seed)
    count = max(1, round(random.randint(3, 8) * seconds / 60))
    faults = [_fault(random, seconds) for _ in range(count)]
    return Plan(seed, seconds, tuple(sorted(faults, key=lambda fault: fault.at_s)))


def _fault(random: Random, seconds: float) -> PlannedFault:
    at_s = random.uniform(QUIET_S, seconds)
    name = random.choices(list(KINDS), [kind.weight for kind in KINDS.values()])[0]
    kind = KINDS[name]
    return PlannedFault(at_s, name, random.choice(kind.targets), random.uniform(*kind.lasts_s))


BEHAVIOURS = {
    Behaviour.PLAIN: 55,
    Behaviour.DEAF: 5,
    Behaviour.USER_ERROR: 10,
    Behaviour.STUMBLES: 8,
    Behaviour.POISON_EXIT: 6,
    Behaviour.POISON_SIGNAL: 5,
    Behaviour.POISON_WORKER: 11,
}


@dataclass(frozen=True)
class PlannedRun:
    script: Script
    seed: int
    steps: int
    every: int


def planned_run(random: Random) -> PlannedRun:
    """A run of one second to almost a minute, which a cancel has to cut short; its seed is its own."""
    behaviour = random.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))[0]
    step_ms = random.choice((20, 50, 100))
    length_s = random.choices((1.0, 2.0, 5.0, 20.0, 50.0), (3, 3, 3, 2, 1))[0]
    if behaviour is Behaviour.DEAF:
        length_s = 50.0
    steps = max(4, int(length_s * 1000 / step_ms))
    every = random.randint(max(1, steps // 20), max(1, steps // 4))
    return PlannedRun(Script(behaviour, step_ms), random.randrange(2**31), steps, every)
