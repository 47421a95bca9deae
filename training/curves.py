"""A run's curves, with no more points than can be drawn: PostgreSQL leaves out what would not be seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import connection

MIN_POINTS, MAX_POINTS = 4, 10_000
CURVES = {
    "loss": ("StepLogged", "loss"),
    "learningRate": ("StepLogged", "learning_rate"),
    "gradNorm": ("StepLogged", "grad_norm"),
    "tokensPerSecond": ("StepLogged", "tokens_per_second"),
    "memoryBytes": ("StepLogged", "memory_bytes"),
    "evalLoss": ("Evaluated", "eval_loss"),
}
"""By name: the kind of event that has it, and its key there."""

# A resumed run has taken some steps twice: what came later counts. Of each stretch of steps the lowest and the highest value stay, so
# that a spike is seen at any width, and the first and the last step stay.
_POINTS = """
WITH logged AS (
    SELECT DISTINCT ON (name, step) name, (data ->> 'step')::int AS step, (data ->> key)::float8 AS value
    FROM training_trainingrunevent event JOIN unnest(%(names)s::text[], %(kinds)s::text[], %(keys)s::text[]) AS wanted (name, kind, key)
        ON event.kind = wanted.kind
    WHERE job_id = %(run)s ORDER BY name, step, sequence DESC
), stretched AS (
    SELECT *, count(*) OVER (PARTITION BY name) AS points, row_number() OVER steps AS number,
        ntile(%(stretches)s) OVER steps AS stretch
    FROM logged WINDOW steps AS (PARTITION BY name ORDER BY step)
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY name, stretch ORDER BY value, step) AS low,
        row_number() OVER (PARTITION BY name, stretch ORDER BY value DESC NULLS LAST, step) AS high FROM stretched
)
SELECT name, step, value FROM ranked
WHERE points <= %(most)s OR low = 1 OR high = 1 OR number = 1 OR number = points ORDER BY name, step
"""


@dataclass(frozen=True)
class Curve:
    """Values at ascending steps; None where one was not finite."""

    name: str
    steps: list[int]
    values: list[float | None]


def curves(run_id: UUID, names: Sequence[str], most_points: int) -> list[Curve]:
    """Each of `names`, which are of CURVES, with at most so many of its points. Inside a scope that has the run."""
    found = {name: Curve(name, [], []) for name in names}
    with connection.cursor() as cursor:
        cursor.execute(
            _POINTS,
            {
                "run": run_id,
                "names": list(found),
                "kinds": [CURVES[name][0] for name in found],
                "keys": [CURVES[name][1] for name in found],
                "stretches": max(1, (most_points - 2) // 2),
                "most": most_points,
            },
        )
        for name, step, value in cursor.fetchall():
            found[name].steps.append(step)
            found[name].values.append(value)
    return list(found.values())
