"""kill -9 of the trainer in a step: requeued, resumed from the newest whole checkpoint, and the adapter is bit-equal."""

from __future__ import annotations

import time

import pytest

from tests.faults.injector import Injector
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

REQUEUED_WITHIN_S = 75.0


def test_a_run_goes_on_from_its_newest_checkpoint(injector: Injector, team: Team) -> None:
    run = team.start_run(steps=60, every=10)
    team.wait_step(run, step=25)
    injector.kill("trainer")
    killed_at = time.monotonic()
    first = team.wait_seen(run, lambda seen: seen.event == "step" and seen.fence == 2)
    newest = max(seen.step for seen in team.seen(run) if seen.event == "checkpoint" and seen.fence == 1)
    assert newest >= 20
    assert first.step == newest + 1
    assert first.at - killed_at < REQUEUED_WITHIN_S
    assert team.wait_trained(run)["attempt"] == 2
