"""The benchmark of cold starts, with a model of two layers: both ways come to the same token by the same logits."""

from __future__ import annotations

import pytest

from benchmarks import cold_start
from benchmarks.cold_start import PEERS, SMALL


@pytest.mark.slow
def test_both_ways_come_to_the_same_token() -> None:
    report = cold_start.run(list(PEERS), shape=SMALL, rounds=1)
    assert report.failed_peers == {}
    assert [check for check, kept in report.checks.items() if not kept] == []
    assert len(report.checks) == 4
    assert set(report.ratios) == {"quantize", "quantize, by the clock"}
    assert report.ratios["quantize"].target == 20
