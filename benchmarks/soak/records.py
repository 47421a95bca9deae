"""What became of the requests: one record each, as the load has written them."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import quantile
from benchmarks.soak.timeline import Span, is_within


class Record(NamedTuple):
    due: float  # when it was to be sent
    seconds: float  # from then to the whole answer
    operation: str
    is_write: bool
    problem: str | None


@dataclass(frozen=True)
class Figures:
    """Of the requests of one span."""

    requests: int
    per_second: float  # answered, and rightly
    p50_s: float
    p95_s: float
    p99_s: float
    max_s: float
    error_share: float
    write_share: float

    @classmethod
    def of(cls, records: Sequence[Record], span_s: float) -> Figures:
        """Raises ValueError where there are none."""
        if not records:
            raise ValueError("No requests were recorded.")
        seconds = [record.seconds for record in records]
        wrong = sum(record.problem is not None for record in records)
        return cls(
            requests=len(records),
            per_second=(len(records) - wrong) / span_s,
            p50_s=quantile(seconds, 0.5),
            p95_s=quantile(seconds, 0.95),
            p99_s=quantile(seconds, 0.99),
            max_s=max(seconds),
            error_share=wrong / len(records),
            write_share=sum(record.is_write for record in records) / len(records),
        )


def read(path: Path) -> list[Record]:
    with path.open() as lines:
        return [Record(*json.loads(line)) for line in lines]


def within(records: Iterable[Record], *spans: Span) -> list[Record]:
    return [record for record in records if any(is_within(record.due, span) for span in spans)]


def by_operation(records: Iterable[Record]) -> dict[str, dict[str, float]]:
    """The slowest first."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for record in records:
        seconds[record.operation].append(record.seconds)
    figures = {
        name: {"requests": len(each), "p50_s": quantile(each, 0.5), "p95_s": quantile(each, 0.95)}
        for name, each in seconds.items()
    }
    return dict(sorted(figures.items(), key=lambda item: -item[1]["p95_s"]))


def problems(records: Iterable[Record]) -> dict[str, int]:
    found = Counter(f"{record.operation}: {record.problem}" for record in records if record.problem is not None)
    return dict(found.most_common(20))
