"""PostgreSQL restarted, away longer than a lease, or hanging: 503 with Retry-After, recovery, and no run done twice."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from tests.faults.api import RUN
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.proof import prove
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import Team
from tests.faults.visitor import Visitor

pytestmark = [pytest.mark.faults, pytest.mark.slow]

RECOVERED_WITHIN_S = 15.0
LONGER_THAN_A_LEASE_S = 90.0
LEASE_S = 60.0
CHILD_GONE_AFTER_S = 55.0  # of silence
STEP_MS = 50


def looks(team: Team, run: str) -> Visitor:
    return Visitor(team, lambda: team.api.look(RUN, run))


def assert_503_with_retry_after(visitor: Visitor) -> None:
    """While the database was away, and only then, each answer was a 503 that says when to come again."""
    assert {(answer.status, answer.retry_after_s is not None) for answer in visitor.failures()} == {(503, True)}


def assert_recovered(team: Team, visitor: Visitor, back_at: float) -> None:
    """The API answers, and a new run is at work."""
    run = team.start_run(steps=5)
    print(f"the API answered after {visitor.first_success_after(back_at).at - back_at:.1f} s")
    assert visitor.first_success_after(back_at).at - back_at < RECOVERED_WITHIN_S
    print(f"a new run began after {team.wait_step(run).at - back_at:.1f} s")
    assert team.wait_step(run).at - back_at < RECOVERED_WITHIN_S
    team.wait_trained(run)


def assert_stepped_on(team: Team, run: str, since: float, until: float, most_s: float) -> None:
    """The trainer made steps all the time."""
    at = [since, *(seen.at for seen in team.seen(run) if seen.event == "step" and since < seen.at < until), until]
    assert max(later - earlier for earlier, later in pairwise(at)) < most_s


@pytest.mark.parametrize("kill", [False, True], ids=["shut down", "killed"])
def test_a_restart_is_a_pause_for_the_api_and_nothing_for_a_run(
    platform: Installation, injector: Injector, team: Team, kill: bool
) -> None:
    run = team.start_run(Script(Behaviour.PLAIN, STEP_MS), steps=60, every=10)
    team.wait_step(run, step=5)
    with looks(team, run) as visitor:
        away_at = time.monotonic()
        with injector.postgres_away(kill=kill):
            pass
        back_at = time.monotonic()
        assert_recovered(team, visitor, back_at)
        ended = team.wait_trained(run)
    assert_503_with_retry_after(visitor)
    assert_stepped_on(team, run, away_at, back_at, most_s=5.0)
    assert (ended["attempt"], ended["fence"]) == (1, 1)


def test_a_run_steps_on_while_the_database_is_away_for_longer_than_a_lease(
    platform: Installation, injector: Injector, team: Team
) -> None:
    run = team.start_run(Script(Behaviour.PLAIN, STEP_MS), steps=2400, every=100)
    team.wait_step(run, step=5)
    with looks(team, run) as visitor:
        away_at = time.monotonic()
        with injector.postgres_away():
            time.sleep(LONGER_THAN_A_LEASE_S)
        back_at = time.monotonic()
        assert_recovered(team, visitor, back_at)
        ended = team.wait_trained(run, 180)
    assert_503_with_retry_after(visitor)
    assert_stepped_on(team, run, away_at, back_at, most_s=5.0)
    assert (ended["attempt"], ended["fence"]) == (1, 1)


def test_a_run_that_ends_while_the_database_is_away_has_ended_when_it_is_back(
    platform: Installation, injector: Injector, team: Team
) -> None:
    run = team.start_run(Script(Behaviour.PLAIN, STEP_MS), steps=100, every=10)
    team.wait_step(run, step=5)
    with injector.postgres_away():
        team.wait_seen(run, lambda seen: seen.event == "finished")
        time.sleep(LEASE_S)
    back_at = time.monotonic()
    ended = team.wait_trained(run)
    assert time.monotonic() - back_at < RECOVERED_WITHIN_S
    assert (ended["attempt"], ended["step"]) == (1, 100)


def test_a_database_that_hangs_stops_the_trainer_before_its_lease_runs_out(
    platform: Installation, injector: Injector, team: Team
) -> None:
    run = team.start_run(Script(Behaviour.PLAIN, STEP_MS), steps=2400, every=100)
    team.wait_step(run, step=5)
    with looks(team, run) as visitor:
        with injector.postgres_paused():
            hung_at = time.monotonic()
            time.sleep(70)
            assert platform.all("trainer") == []
        back_at = time.monotonic()
        last_step = max(seen.at for seen in team.seen(run))
        assert last_step - hung_at < CHILD_GONE_AFTER_S
        assert_recovered(team, visitor, back_at)
        ended = team.wait_trained(run, 240)
    assert ended["attempt"] == 2
    print(Counter(answer.status for answer in visitor.failures()), max(answer.took_s for answer in visitor.answers))
    failures = {answer.status for answer in visitor.failures()}
    assert failures and failures <= {None, 503}, "somebody who asked was not answered, and nobody was told a lie"


def test_a_platform_that_starts_meanwhile_waits_for_the_database(tmp_path: Path) -> None:
    """As after a power cut, when everything comes back at once."""
    with Installation(tmp_path / "platform") as platform, Team(platform) as team:
        team.wait_trained(team.start_run(steps=5))
        assert platform.stop() == 0
        with Injector(platform).postgres_away(kill=True):
            platform.start()
            prove("it waits", lambda: "waiting for the database" in platform.log.read_text(), 60)
        platform.wait_ready()
        team.wait_trained(team.start_run(steps=5))
