"""What random faults have found stays as a test: the same faults, the same clients, and no promise broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.plan import Plan, PlannedFault
from tests.faults.trial import Trial

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FOUND = {
    "jobs submitted while the clock was ahead waited until it was right": Plan(
        13, 30, (PlannedFault(6.0, "clock", "+300", 20.0),)
    ),
    "an upload onto a full disk was answered with an unexpected error": Plan(
        10, 20, (PlannedFault(0.0, "disk-full", "storage", 10.0),)
    ),
}


@pytest.mark.parametrize("plan", FOUND.values(), ids=FOUND.keys())
def test_it_is_found_no_more(plan: Plan, tmp_path: Path) -> None:
    verdict = Trial(plan, tmp_path / "trial").run()
    assert verdict.faults == [fault.name for fault in plan.faults], verdict.summary
    assert verdict.lacking == []
    assert verdict.violations == {}
