"""What a soak comes to: figures beside their limits, as JSON, as a page with drawings, and in short."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from benchmarks.harness import RESULTS, machine, shown
from benchmarks.soak import chart, verdict
from benchmarks.soak.gauges import Sample
from benchmarks.soak.records import Figures, Record, by_operation, problems, within
from benchmarks.soak.timeline import Span, Timeline, is_within
from benchmarks.soak.verdict import Promise

REFUSED = "HTTP 429"


@dataclass(frozen=True)
class Soak:
    """`noisy` are the requests of the tenant that asks too much, `asked` those of all others."""

    timeline: Timeline
    seed: int
    asked: Sequence[Record]
    noisy: Sequence[Record]
    samples: Sequence[Sample]
    before: Sample
    after: Sample

    @cached_property
    def parts(self) -> dict[str, Figures]:
        steady, noise = self.timeline.steady, self.timeline.noise
        return {
            "steady": self._figures(steady),
            "whole": self._figures((steady[0], self.timeline.end)),
            "alone": self._figures(self.timeline.before_neighbour, self.timeline.after_neighbour),
            "beside_quota": self._figures(self.timeline.within_quota),
            "beside_noise": self._figures(noise),
        }

    @cached_property
    def steadily(self) -> list[Sample]:
        return [sample for sample in self.samples if is_within(sample.at, self.timeline.steady)]

    @cached_property
    def slopes(self) -> dict[str, float]:
        return verdict.slopes(self.steadily)

    @cached_property
    def promises(self) -> dict[str, Promise]:
        parts = {name: figures for name, figures in self.parts.items() if name != "beside_quota"}
        under_load = verdict.promises(**parts, slopes=self.slopes, steady_s=self.timeline.steady_s)
        return under_load | verdict.left_behind(self.before, self.after)

    @property
    def passed(self) -> bool:
        return all(promise.is_kept for promise in self.promises.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "name": "soak",
            "machine": machine(),
            "seed": self.seed,
            "seconds": self.timeline.steady_s,
            "promises": {name: asdict(each) | {"verdict": each.verdict} for name, each in self.promises.items()},
            "parts": {name: asdict(figures) for name, figures in self.parts.items()},
            "operations": by_operation(within(self.asked, self.timeline.steady)),
            "problems": problems(within(self.asked, (self.timeline.steady[0], self.timeline.end))),
            "neighbour": {
                name: {"requests": len(theirs), "refused": _refused(theirs), "problems": problems(theirs)}
                for name, theirs in (
                    ("within_quota", within(self.noisy, self.timeline.within_quota)),
                    ("noise", within(self.noisy, self.timeline.noise)),
                )
            },
            "memory_mb": {role: self.steadily[-1].rss_mb[role] for role in self.slopes},
            "memory_mb_per_hour": self.slopes,
            "cores": self._cores(),
            "more_descriptors": verdict.more_descriptors(self.before, self.after),
            "before": self.before.counts,
            "after": self.after.counts,
            "passed": self.passed,
        }

    def publish(self) -> bool:
        """Print it, draw it, and write it to var/benchmarks/soak.json; returns whether every promise is kept."""
        report = self.to_json()
        path = RESULTS / "soak.json"
        path.write_text(json.dumps(report, indent=1) + "\n")
        title = f"Soak with seed {self.seed}, {shown(self.timeline.steady_s)} s"
        drawing = path.with_suffix(".html")
        drawing.write_text(chart.page(self.timeline, self.asked, self.samples, self.promises, title))
        print("\n".join(self._lines(report)))
        print(path, drawing)
        return self.passed

    def _figures(self, *spans: Span) -> Figures:
        return Figures.of(within(self.asked, *spans), sum(end - begin for begin, end in spans))

    def _cores(self) -> dict[str, float]:
        """CPU seconds a second under steady load."""
        first, last = self.steadily[0], self.steadily[-1]
        return {role: (last.cpu_s[role] - first.cpu_s[role]) / max(last.at - first.at, 1e-9) for role in self.slopes}

    def _lines(self, report: dict[str, Any]) -> Iterator[str]:
        def line(text: str) -> str:
            return f"  {'':18} {text}"

        yield f"\nsoak on {', '.join(report['machine'].values())}, seed {self.seed}"
        for operation, figures in report["operations"].items():
            yield line(f"{operation}: " + ", ".join(f"{name} {shown(value)}" for name, value in figures.items()))
        for role, slope in self.slopes.items():
            held, cores = report["memory_mb"][role], report["cores"][role]
            yield line(f"{role}: {shown(held)} MB, {slope:+.2f} MB an hour, {shown(cores)} cores")
        for problem, count in report["problems"].items():
            yield line(f"{count} times {problem}")
        flood = within(self.noisy, self.timeline.noise)
        yield line(f"the noisy tenant: {len(flood):,} requests, {_refused(flood):.1%} refused")
        alone, quota, noise = (self.parts[name].p95_s for name in ("alone", "beside_quota", "beside_noise"))
        yield line(f"the others' p95 without it: {shown(alone)} s")
        yield line(
            f"beside what it may ask {shown(quota / alone)} times that, beside ten times as much {shown(noise / alone)}"
        )
        for role, number in verdict.more_descriptors(self.before, self.after):
            yield line(f"{role}: {number:+} descriptors of a process")
        for name, promise in self.promises.items():
            yield promise.line(name)
        yield f"  {'passed' if self.passed else 'NOT PASSED'}"


def _refused(records: Sequence[Record]) -> float:
    return sum(record.problem == REFUSED for record in records) / max(1, len(records))
