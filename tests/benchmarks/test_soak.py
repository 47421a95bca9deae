"""What a soak concludes from its records and samples, and what its load asks for."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.soak import chart, records, verdict
from benchmarks.soak.gauges import COUNTS, Sample, role_of
from benchmarks.soak.mix import REFUSED, RUN, Asked, Mix, Tenant, answered
from benchmarks.soak.records import Figures, Record
from benchmarks.soak.report import Soak
from benchmarks.soak.timeline import Timeline
from benchmarks.soak.verdict import Promise

ZERO = dict.fromkeys(COUNTS, 0)
TIMELINE = Timeline(begin=1000.0, steady_s=120.0)


def record(due: float, seconds: float = 0.1, problem: str | None = None, is_write: bool = False) -> Record:
    return Record(due, seconds, "trainingRun", is_write, problem)


def figures(**changed: float) -> Figures:
    kept: dict[str, Any] = {
        "requests": 1000,
        "per_second": 80.0,
        "p50_s": 0.01,
        "p95_s": 0.25,
        "p99_s": 0.5,
        "max_s": 1.0,
        "error_share": 0.001,
        "write_share": 0.2,
    }
    return Figures(**kept | changed)


def test_the_parts_follow_each_other() -> None:
    spans = [
        TIMELINE.warm_up,
        TIMELINE.quiet,
        TIMELINE.steady,
        TIMELINE.before_neighbour,
        TIMELINE.within_quota,
        TIMELINE.noise,
        TIMELINE.after_neighbour,
    ]
    assert spans[0][0] == 1000.0
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(spans))
    assert [end - begin for begin, end in spans] == [20.0, 30.0, 120.0, 30.0, 60.0, 60.0, 30.0]
    assert TIMELINE.busy == [(1000.0, 1020.0), (1050.0, 1350.0)]
    assert Timeline(0.0, 1800.0).warm_up == (0.0, 300.0)


def test_figures_are_of_the_requests_that_were_due_in_the_span(tmp_path: Path) -> None:
    written = [record(10 + 0.1 * number, seconds=0.001 * number, is_write=number % 5 == 0) for number in range(100)]
    written += [record(19.99, seconds=9.0, problem="HTTP 503"), record(20.0), record(9.99)]
    path = tmp_path / "load.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    found = records.within(records.read(path), (10.0, 20.0))
    assert Figures.of(found, 10.0) == Figures(
        requests=101,
        per_second=10.0,
        p50_s=0.050,
        p95_s=0.095,
        p99_s=0.099,
        max_s=9.0,
        error_share=1 / 101,
        write_share=20 / 101,
    )
    assert records.problems(found) == {"trainingRun: HTTP 503": 1}
    with pytest.raises(ValueError, match="No requests"):
        Figures.of([], 10.0)


def test_a_slope_is_that_of_the_line_with_the_least_squares() -> None:
    assert verdict.slope([0, 1, 2, 3], [1, 3, 5, 7]) == pytest.approx(2)
    assert verdict.slope([0, 1, 2], [0, 3, 0]) == pytest.approx(0)
    assert verdict.slope([5, 5], [1, 2]) == 0
    samples = [
        Sample(10.0 * number, {"web": 100 + 0.01 * number, "up": 50.0} | ({"late": 1.0} if number else {}), {}, ZERO)
        for number in range(100)
    ]
    assert verdict.slopes(samples) == pytest.approx({"up": 0.0, "web": 3.6})


def test_each_promise_is_kept_at_its_limit_and_missed_beyond() -> None:
    kept: dict[str, Any] = {
        "steady": figures(),
        "whole": figures(),
        "alone": figures(p95_s=0.2),
        "beside_noise": figures(p95_s=0.25),
        "slopes": {"web": 1.0, "keeper": -5.0},
        "steady_s": 1800.0,
    }
    assert all(promise.is_kept for promise in verdict.promises(**kept).values())
    for missed, changed in {
        "requests_per_second": {"steady": figures(per_second=79.9)},
        "p95_s": {"steady": figures(p95_s=0.251)},
        "error_share": {"whole": figures(error_share=0.0011)},
        "p95_beside_a_noisy_tenant": {"beside_noise": figures(p95_s=0.2501)},
        "memory_mb_per_hour": {"slopes": {"web": 1.01, "keeper": 0.0}},
    }.items():
        found = verdict.promises(**kept | changed)
        assert [name for name, promise in found.items() if not promise.is_kept] == [missed]
    short = verdict.promises(**kept | {"slopes": {"web": 99.0}, "steady_s": 120.0})["memory_mb_per_hour"]
    assert (short.is_kept, short.verdict) == (True, "too short to tell")


def test_nothing_may_be_left_behind_and_less_is_no_matter() -> None:
    before, after = Sample(0, {}, {}, ZERO | {"keys": 3, "threads": 9}), Sample(1, {}, {}, ZERO | {"keys": 4})
    found = verdict.left_behind(before, after)
    assert {name for name, promise in found.items() if not promise.is_kept} == {"keys_left"}
    assert found["threads_left"].value == -9
    before, after = (Sample(0, {}, {}, ZERO, {("web", 1): 20, ("up", 2): held, ("web", held): 50}) for held in (7, 9))
    assert verdict.left_behind(before, after)["descriptors_left"].value == 2
    assert verdict.more_descriptors(before, after) == [("up", 2)]
    assert Promise(79, 80, is_floor=True).line("requests_per_second").split() == [
        *("MISSED", "requests_per_second", "79,", "at", "least", "80")
    ]


def test_the_report_holds_figures_beside_their_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.soak.report.RESULTS", tmp_path)
    asked = [record(1000 + 0.01 * number, is_write=number % 5 == 0) for number in range(35_000)]
    noisy = [record(1201.0)] * 5 + [record(1261.0, problem="HTTP 429")] * 9 + [record(1261.0)]
    samples = [Sample(1000.0 + 5 * number, {"web": 100.0}, {"web": 2.0 * number}, ZERO) for number in range(60)]
    assert Soak(TIMELINE, 7, asked, noisy, samples, samples[0], samples[-1]).publish()
    report = json.loads((tmp_path / "soak.json").read_text())
    assert report["passed"]
    assert report["promises"]["requests_per_second"]["value"] == pytest.approx(100, rel=0.001)
    assert report["promises"]["p95_s"] == {
        "value": 0.1,
        "limit": 0.25,
        "is_floor": False,
        "is_judged": True,
        "verdict": "ok",
    }
    assert report["neighbour"] == {
        "within_quota": {"requests": 5, "refused": 0.0, "problems": {}},
        "noise": {"requests": 10, "refused": 0.9, "problems": {"trainingRun: HTTP 429": 9}},
    }
    assert report["cores"] == {"web": pytest.approx(0.4)}
    page = (tmp_path / "soak.html").read_text()
    assert page.count("<svg") == 2 and "p95_beside_a_noisy_tenant" in page
    leaking = Sample(1300.0, {}, {}, ZERO | {"unfinished_jobs": 1})
    assert not Soak(TIMELINE, 7, asked, noisy, samples, samples[0], leaking).publish()


def test_a_chart_of_almost_nothing_is_drawn() -> None:
    assert "<svg" in chart.page(TIMELINE, [record(1001.0)], [], {}, "A <soak>")


def test_four_of_five_requests_read_and_the_same_seed_asks_the_same() -> None:
    def asked(seed: int) -> list[tuple[int, Asked]]:
        mix, found = Mix(seed, tenants()), []
        for _ in range(5000):
            number, each = mix.next()
            if each.operation == "startTrainingRun":
                each.problem({"__typename": "TrainingRun", "id": f"run {len(found)}"})
            found.append((number, each))
        return found

    first, again = asked(3), asked(3)
    assert [(number, each.operation, each.variables) for number, each in first] == [
        (number, each.operation, each.variables) for number, each in again
    ]
    writes = Counter(each.operation for _, each in first if each.is_write)
    assert sum(writes.values()) / 5000 == pytest.approx(0.2, abs=0.02)
    assert 0 <= writes["startTrainingRun"] - writes["cancelTrainingRun"] <= 10
    assert {number for number, _ in first} == {0, 1, 2}


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (200, {"data": {"trainingRun": {"id": "r", "organization": {"id": "o"}}}}, None),
        (200, {"data": {"trainingRun": {"id": "r", "organization": {"id": "p"}}}}, "another row"),
        (200, {"data": {"trainingRun": None}}, "null"),
        (200, {"data": None, "errors": [{"message": "M", "extensions": {"code": "INTERNAL"}}]}, "INTERNAL"),
        (429, {}, "HTTP 429"),
    ],
)
def test_an_answer_is_right_only_if_it_is_what_was_asked_for(status: int, body: Any, problem: str | None) -> None:
    mix = Mix(1, tenants())
    asked = mix._run(0, Tenant("o", ["r"], "d", "v", "u"))
    assert asked.document == RUN and answered(asked, status, body) == problem


def test_a_refused_write_is_a_problem() -> None:
    mix = Mix(1, tenants())
    body = {"data": {"createDataset": {"__typename": "OperationInfo", "messages": [{"code": "NOT_ALLOWED"}]}}}
    asked = mix._new_dataset(0, mix.tenants[0])
    assert REFUSED in asked.document and answered(asked, 200, body) == "NOT_ALLOWED"


@pytest.mark.parametrize(
    ("role", "shown"),
    [("web", "web"), ("training busy worker", "training worker"), ("trainer", None), ("guard web", None)],
)
def test_a_worker_is_one_whether_it_is_busy_or_not(role: str, shown: str | None) -> None:
    assert role_of(role) == shown


def tenants() -> list[Tenant]:
    return [Tenant(f"o{number}", [f"r{number}"], "d", "v", "u") for number in range(3)]
