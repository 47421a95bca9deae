"""SIGTERM while training: a checkpoint, the lease released, all gone within 30 s, and later on from that checkpoint."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults import ledger
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.poison import GIVEN_BACK
from tests.faults.process_table import Running
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

GONE_WITHIN_S = 30.0
TIME_TO_HEAR_S = 20.0


def was_given_back(row: dict[str, Any]) -> bool:
    released = (row["lease_owner"], row["lease_until"], row["process"], row["unproductive_attempts"])
    return row["status"] == "QUEUED" and released == ("", None, None, 0)


def last_saved(team: Team, run: str) -> int:
    return max(seen.step for seen in team.seen(run) if seen.event == "checkpoint")


def assert_went_on(team: Team, run: str, saved: int) -> None:
    """The second attempt went on right behind what was saved, and the run is as if nothing had been."""
    assert team.wait_trained(run, 120)["attempt"] == 2
    first = next(seen for seen in team.seen(run) if seen.event == "step" and seen.fence == 2)
    assert first.step == saved + 1


def test_the_whole_platform_stops_and_goes_on_later(platform: Installation, team: Team) -> None:
    run = team.start_run(Script(Behaviour.PLAIN, step_ms=50), steps=300, every=1000)
    team.wait_step(run, step=20)
    asked_at = time.monotonic()
    assert platform.stop() == 0
    assert time.monotonic() - asked_at < GONE_WITHIN_S
    assert platform.processes() == []
    assert was_given_back(team.row(run))
    saved = last_saved(team, run)
    assert saved >= 20 and [seen.event for seen in team.seen(run)][-1] == "checkpoint"
    platform.start()
    platform.wait_ready()
    assert_went_on(team, run, saved)


def members(platform: Installation, queue: str) -> list[Running]:
    """All processes of a cluster, its guard and its trainers included."""
    return [each for each in platform.processes() if each.role.startswith(queue) or each.role == f"guard {queue}"]


@pytest.mark.parametrize("told", ["guard training", "training parent"])
def test_a_cluster_alone_stops_and_its_run_goes_on_in_the_next_one(
    platform: Installation, team: Team, injector: Injector, told: str
) -> None:
    """The guard is what `make up` tells; the parent is process 1 of a container."""
    run = team.start_run(Script(Behaviour.PLAIN, step_ms=50), steps=400, every=10_000)
    team.wait_step(run, step=20)
    cluster, trainer = members(platform, "training"), platform.one("trainer")
    asked_at = time.monotonic()
    injector.terminate(told)
    ledger.wait_row(platform, run, lambda row: row["fence"] == 2 or was_given_back(row), GONE_WITHIN_S)
    while any(each.is_there for each in [*cluster, trainer]):
        assert time.monotonic() - asked_at < GONE_WITHIN_S
        time.sleep(0.05)
    saved = max(seen.step for seen in team.seen(run) if seen.event == "checkpoint" and seen.fence == 1)
    assert saved >= 20
    assert_went_on(team, run, saved)


def test_a_trainer_that_does_not_hear_is_killed_in_time(tmp_path: Path) -> None:
    with Installation(tmp_path / "platform", training_workers=1) as platform, Team(platform) as team:
        run = team.start_run(Script(Behaviour.DEAF, step_ms=100), steps=500, every=20)
        team.wait_step(run, step=30)
        asked_at = time.monotonic()
        assert platform.stop() == 0
        assert TIME_TO_HEAR_S < time.monotonic() - asked_at < GONE_WITHIN_S
        assert platform.processes() == []
        assert was_given_back(team.row(run))
        assert ledger.reasons(platform, run) == [GIVEN_BACK[0]]
        saved = last_saved(team, run)
        platform.start()
        platform.wait_ready()
        assert_went_on(team, run, saved)
