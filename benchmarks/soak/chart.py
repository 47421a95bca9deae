"""The soak as a page with two drawings: how long answers took, and what the processes held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.harness import quantile, shown
from benchmarks.soak.gauges import Sample
from benchmarks.soak.records import Record
from benchmarks.soak.timeline import Span, Timeline
from benchmarks.soak.verdict import MAX_P95_S, Promise

WIDTH, HEIGHT, MARGIN = 900, 220, 45
STEPS = 90  # points along the time
COLOURS = ("#5b3fc4", "#c4663f", "#2f8f6b", "#b03a6f", "#3f7fc4", "#8a8a2a", "#6b6b6b", "#a0522d", "#008b8b", "#444")
STYLE = "body{font:15px system-ui;max-width:960px;margin:2em auto;padding:0 1em}td{padding:.15em .8em}.MISSED{color:#b00020}"
Points = list[tuple[float, float]]


def page(
    timeline: Timeline, records: Sequence[Record], samples: Sequence[Sample], kept: Mapping[str, Promise], title: str
) -> str:
    memory = {
        role: [(each.at, each.rss_mb[role]) for each in samples if role in each.rss_mb] for role in _roles(samples)
    }
    rows = "".join(
        f'<tr class="{promise.verdict}"><td>{promise.verdict}<td>{escape(name)}<td>{shown(promise.value)}'
        f"<td>{'≥' if promise.is_floor else '≤'} {shown(promise.limit)}"
        for name, promise in kept.items()
    )
    return (
        f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title><style>{STYLE}</style><h1>{escape(title)}</h1>"
        f"<table>{rows}</table>"
        f"<h2>Answers: p50 and p95, ms</h2>{_drawn(timeline, _latencies(timeline, records), 1000 * MAX_P95_S)}"
        f"<h2>Memory by process, MB</h2>{_drawn(timeline, memory)}"
        "<p>Shaded: a neighbour at ten times its quota. Blank: the quiet moment before the steady load.</p>\n"
    )


def _roles(samples: Sequence[Sample]) -> list[str]:
    last = samples[-1].rss_mb if samples else {}
    return sorted(last, key=lambda role: -last[role])


def _latencies(timeline: Timeline, records: Sequence[Record]) -> dict[str, Points]:
    step = (timeline.end - timeline.begin) / STEPS
    found: dict[int, list[float]] = defaultdict(list)
    for record in records:
        found[int((record.due - timeline.begin) / step)].append(1000 * record.seconds)
    return {
        name: [(timeline.begin + (at + 0.5) * step, quantile(each, share)) for at, each in sorted(found.items())]
        for name, share in (("p95", 0.95), ("p50", 0.5))
    }


def _drawn(timeline: Timeline, lines: Mapping[str, Points], limit: float | None = None) -> str:
    top = 1.1 * max([value for points in lines.values() for _, value in points] + [limit or 0.0]) or 1.0

    def x(at: float) -> float:
        return MARGIN + (WIDTH - MARGIN) * (at - timeline.begin) / (timeline.end - timeline.begin)

    def y(value: float) -> float:
        return HEIGHT * (1 - value / top)

    def band(span: Span) -> str:
        return (
            f'<rect x="{x(span[0]):.1f}" y="0" width="{x(span[1]) - x(span[0]):.1f}" height="{HEIGHT}" fill="#0001"/>'
        )

    drawn = [band(timeline.noise)]
    for part in range(5):
        value = top * part / 4
        drawn.append(f'<path d="M{MARGIN} {y(value):.1f}H{WIDTH}" stroke="#ddd"/>')
        drawn.append(f'<text x="0" y="{y(value) + 4:.1f}" font-size="11">{shown(round(value, 1))}</text>')
    if limit is not None:
        drawn.append(f'<path d="M{MARGIN} {y(limit):.1f}H{WIDTH}" stroke="#b00020" stroke-dasharray="4"/>')
    legend = []
    for colour, (name, points) in zip(COLOURS * 2, lines.items(), strict=False):
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in points)
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        legend.append(f'<span style="color:{colour}">&#9632; {escape(name)}</span>')
    svg = f'<svg viewBox="0 -10 {WIDTH} {HEIGHT + 20}" width="100%">{"".join(drawn)}</svg>'
    return f"{svg}<p>{' &nbsp; '.join(legend)}</p>"
