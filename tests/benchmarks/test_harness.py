"""What benchmarks conclude from their figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import harness
from benchmarks.__main__ import main
from benchmarks.harness import Limit, Ratio, Report, alternated, median_interval, quantile


def test_contenders_take_turns_at_being_first() -> None:
    assert list(alternated(["a", "b"], 3)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [(1, 1, 1), (5, 1, 5), (6, 1, 6), (8, 1, 8), (9, 2, 8), (20, 6, 15), (100, 40, 61)],
)
def test_the_medians_interval_is_that_of_the_sign_test(count: int, low: int, high: int) -> None:
    assert median_interval(range(count, 0, -1)) == (low, high)


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([3, 1, 2, 4], share) for share in (0.0, 0.25, 0.5, 0.51, 0.95, 1.0)] == [1, 1, 2, 3, 4, 4]


def test_a_ratio_is_met_when_the_lower_end_of_its_interval_reaches_the_target() -> None:
    ratio = Ratio.of([2.0, 1.0, 3.0, 4.0, 5.0, 6.0], target=1.0)
    assert (ratio.median, ratio.low, ratio.high) == (3.5, 1.0, 6.0)
    assert ratio.is_met
    assert not Ratio.of([2.0, 0.9, 3.0, 4.0, 5.0, 6.0], target=1.0).is_met
    assert Ratio.of([0.1]).is_met, "without a target there is nothing to miss"


def test_a_report_passes_with_all_checks_limits_and_targets_and_says_so_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "benchmarks")
    report = Report("example")
    report.checks["the same answers"] = True
    report.ours["rows_per_second"] = 12_345.6
    report.ratios["peer"] = Ratio.of([2.0], target=1.5)
    report.limits["p95_s"] = Limit(0.25, 0.25)
    report.failed_peers["other"] = "does not install"
    written = json.loads(report.publish().read_text())
    assert written.keys() >= {"machine", "rounds"}
    assert {key: written[key] for key in ("name", "checks", "ours", "ratios", "limits", "failed_peers", "passed")} == {
        "name": "example",
        "checks": {"the same answers": True},
        "ours": {"rows_per_second": 12_345.6},
        "ratios": {"peer": {"median": 2.0, "low": 2.0, "high": 2.0, "target": 1.5}},
        "limits": {"p95_s": {"value": 0.25, "limit": 0.25}},
        "failed_peers": {"other": "does not install"},
        "passed": True,
    }
    assert "FAILED other: does not install" in capsys.readouterr().out
    for break_it in (
        lambda: report.checks.update({"the same answers": False}),
        lambda: report.limits.update({"p95_s": Limit(0.26, 0.25)}),
        lambda: report.ratios.update({"peer": Ratio.of([1.4], target=1.5)}),
    ):
        assert report.passed
        before = (dict(report.checks), dict(report.limits), dict(report.ratios))
        break_it()
        assert not report.passed
        report.checks, report.limits, report.ratios = before


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["clams"],
            "choose from 'api', 'append', 'claims', 'cold_start', 'dispatch', 'estimates', 'growth', 'hostile', 'ids', 'large_upload', 'multi_lora', 'near_dedup', 'parse', 'pii', 'pipeline', 'subscriptions', 'train_cpu'",
        ),
        (["claims", "--peers", "x"], "its peers: short_queue"),
        (["dispatch", "--peers", "x"], "its peers: none"),
    ],
)
def test_a_mistyped_name_is_told_what_there_is(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
