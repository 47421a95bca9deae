"""Redis flushed, restarted, away, or hanging: the API is up, submissions are durable, and watchers miss nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from tests.faults import ledger
from tests.faults.api import RUN
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import PLAIN, Team
from tests.faults.visitor import Visitor

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FEW_SECONDS_S = 6.0
FOUND_WITHIN_S = 30.0


def watched(team: Team, run: str) -> Future[list[int]]:
    """The sequences that somebody who watches hears, over as many connections as it takes."""

    async def listen() -> list[int]:
        return [event["sequence"] async for event in team.api.watch(RUN, run)]

    return team.begin(listen())


def assert_heard_all(platform: Installation, run: str, watching: Future[list[int]]) -> None:
    assert watching.result(15) == [event["sequence"] for event in ledger.events(platform, run)]


def submissions(team: Team, every_s: float) -> Visitor:
    return Visitor(team, lambda: team.api.start_run(team.version, PLAIN, seed=1, steps=3), every_s)


def assert_all_answered(visitor: Visitor) -> None:
    assert visitor.failures() == []
    slowest = max(answer.took_s for answer in visitor.answers)
    print(f"{len(visitor.answers)} submissions, the slowest answered in {slowest:.2f} s")
    assert slowest < FEW_SECONDS_S


def assert_found(team: Team, visitor: Visitor, since: float) -> None:
    """All runs that were submitted begin soon, and succeed at the first attempt."""
    for answer in visitor.answers:
        team.expect(answer.value, seed=1, steps=3)
        assert team.wait_trained(answer.value, 120)["attempt"] == 1
    last = max(team.wait_step(answer.value).at for answer in visitor.answers)
    print(f"the last of them began {last - since:.1f} s after Redis was back")
    assert last - since < FOUND_WITHIN_S


def test_a_flush_loses_no_job_and_no_event(platform: Installation, injector: Injector, team: Team) -> None:
    running = team.start_run(steps=60, every=10)
    watching = watched(team, running)
    team.wait_step(running, step=10)
    queued = [team.start_run(steps=3) for _ in range(3)]  # an organization has two running at most: these wait
    injector.flush_redis()
    queued.append(team.start_run(steps=3))
    assert [team.wait_trained(run)["attempt"] for run in [running, *queued]] == [1] * 5
    assert_heard_all(platform, running, watching)


@contextmanager
def restarted(injector: Injector) -> Iterator[None]:
    injector.restart_redis()
    yield


def away(injector: Injector) -> AbstractContextManager[None]:
    return injector.redis_away()


def hanging(injector: Injector) -> AbstractContextManager[None]:
    return injector.redis_paused()


@pytest.mark.parametrize(
    ("fault", "lasts_s"),
    [(restarted, 5.0), (away, 20.0), (away, 300.0), (hanging, 20.0)],
    ids=["restarted", "away for 20 s", "away for 5 minutes", "hanging for 20 s"],
)
def test_the_platform_goes_on_without_redis(
    platform: Installation, injector: Injector, team: Team, fault: Any, lasts_s: float
) -> None:
    steps = int(lasts_s * 10)  # half of the time; the run ends while Redis is away
    running = team.start_run(Script(Behaviour.PLAIN, step_ms=50), steps=steps, every=10)
    watching = watched(team, running)
    team.wait_step(running, step=5)
    with fault(injector), submissions(team, every_s=lasts_s / 5) as visitor:
        time.sleep(lasts_s)
        # a worker that is at work goes on with what is queued; nobody has to ring for that
        assert team.wait_trained(running)["attempt"] == 1
    back_at = time.monotonic()
    assert_all_answered(visitor)
    assert_found(team, visitor, since=back_at)
    assert_heard_all(platform, running, watching)
