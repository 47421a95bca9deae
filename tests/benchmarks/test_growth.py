"""What the benchmark of growth calls a slope, the documents that it searches, and the runs that it judges."""

from __future__ import annotations

import pytest

from benchmarks.growth import judge_whole, slope
from benchmarks.growth.near import Documents
from benchmarks.growth.whole import Runs, whole_runs
from benchmarks.harness import Report


@pytest.mark.parametrize("power", [0, 1, 1.1, 2])
def test_the_slope_is_the_power_that_time_grows_with(power: float) -> None:
    assert slope({size: 0.003 * size**power for size in (10, 31, 100)}) == pytest.approx(power)


def test_of_mixed_documents_some_are_similar_and_of_copies_all() -> None:
    mixed = Documents("mixed", "1000").search(1000)
    assert 100 < mixed["left_out"] < 200
    assert mixed["left_out"] <= mixed["compared"] < 300
    copies = Documents("copies", "300")
    assert copies.search(300)["left_out"] == 299
    assert copies.search(30)["left_out"] == 29
    assert copies.bytes_a_document(300) > 205


def test_whole_runs_are_of_so_many_records_each_and_leave_some_out() -> None:
    runs, command = whole_runs((300, 900), rounds=2)
    assert command == "python -m benchmarks.actor benchmarks.pipeline.contender:Pipeline ..."
    assert [one["rows_kept"] + one["rejected"] for count in (300, 900) for one in runs[count]] == [300, 300, 900, 900]
    report = Report("growth", rounds=2)
    judge_whole(report, runs)
    assert list(report.checks.values()) == [True, True]
    assert report.limits["pipeline_slope"].is_kept


def test_runs_that_take_more_than_there_is_more_of_are_beyond_the_limits() -> None:
    runs: Runs = {
        count: [{"cpu_s": (count / 1000) ** 1.2, "anonymous_bytes": 400 * count, "digest": "", "rows_kept": count}]
        for count in (1_000, 100_000, 1_000_000)
    }
    report = Report("growth", rounds=1)
    judge_whole(report, runs)
    assert report.limits["pipeline_slope"].value == pytest.approx(1.2)
    assert report.limits["pipeline_from_100000_slope"].value == pytest.approx(1.2)
    assert report.limits["pipeline_bytes_a_record"].value == 400
    assert [limit.is_kept for limit in report.limits.values()] == [False, False, False]
    assert report.checks["of each size a tenth and more, and no more than a fifth, is left out"] is False
    runs[1_000].append(runs[1_000][0] | {"digest": "another"})
    judge_whole(report, runs)
    assert report.checks["every run over the same records stores the same bytes"] is False
