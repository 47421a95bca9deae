"""The clock of the platform's processes is five minutes off, PostgreSQL's is right: no lease is stolen, tokens have leeway."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.faults import ledger
from tests.faults.api import RUN, Refused
from tests.faults.clock import Clock
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.proof import NotProven
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

LEASE_S = 60.0
TOKEN_LIVES_S = 600.0
LEEWAY_S = 30.0
LEFT_OF_LEASE = """SELECT extract(epoch FROM lease_until - clock_timestamp()) AS left_s
                   FROM training_trainingrun WHERE id = %s"""


@dataclass(frozen=True)
class Skewed:
    """A platform all of whose processes see `clock`."""

    platform: Installation
    clock: Clock


@pytest.fixture(scope="module")
def skewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Skewed]:
    root = tmp_path_factory.mktemp("skewed")
    try:
        clock = Clock(root / "clock")
    except NotProven as reason:
        pytest.skip(str(reason))
    with Installation(root / "platform", environment=clock.environment) as platform:
        yield Skewed(platform, clock)


@pytest.fixture
def team(skewed: Skewed) -> Iterator[Team]:
    with Team(skewed.platform) as team:
        yield team


@pytest.mark.parametrize("off_s", [300, -300])
def test_a_job_stays_with_its_worker_when_the_clock_jumps(skewed: Skewed, team: Team, off_s: int) -> None:
    run = team.start_run(Script(Behaviour.PLAIN, step_ms=50), steps=700, every=50)
    team.wait_step(run, step=20)
    with Injector(skewed.platform).clock_off(skewed.clock, off_s):
        team.wait_step(run, step=500)  # two heartbeats and four sweeps
        (lease,) = ledger.select(skewed.platform, LEFT_OF_LEASE, ledger.job_id(run))
        assert 30 < lease["left_s"] <= LEASE_S
        assert team.row(run)["fence"] == 1
    row = team.wait_trained(run)
    assert (row["attempt"], row["fence"]) == (1, 1)
    assert ledger.statuses(skewed.platform, run) == ["QUEUED", "RUNNING", "SUCCEEDED"]


@pytest.mark.parametrize("off_s", [300, -300])
def test_jobs_are_done_while_the_clock_is_off(skewed: Skewed, off_s: int) -> None:
    with Injector(skewed.platform).clock_off(skewed.clock, off_s), Team(skewed.platform) as team:
        killed, plain = team.start_run(steps=100, every=10), team.start_run(steps=20)
        team.wait_step(killed, step=15)
        Injector(skewed.platform).kill("training busy worker")
        rows = [team.wait_trained(run, 75) for run in (killed, plain)]
        assert sum(row["attempt"] for row in rows) == 3


@pytest.mark.parametrize(
    ("off_s", "is_accepted"),
    [
        (LEEWAY_S - 5, True),
        (5 - LEEWAY_S, True),
        (300, True),  # within the ten minutes of a token's life
        (-300, False),  # it comes from the future
        (TOKEN_LIVES_S + LEEWAY_S - 15, True),
        (TOKEN_LIVES_S + LEEWAY_S + 5, False),
    ],
)
def test_tokens_of_a_right_clock_are_judged_within_the_leeway(
    skewed: Skewed, team: Team, off_s: float, is_accepted: bool
) -> None:
    run = team.start_run(steps=1)
    team.call(team.api.log_in())
    with Injector(skewed.platform).clock_off(skewed.clock, off_s):
        if is_accepted:
            assert team.call(team.api.look(RUN, run))["status"]
        else:
            with pytest.raises(Refused, match="Sign in") as refusal:
                team.call(team.api.look(RUN, run))
            assert refusal.value.code == "UNAUTHENTICATED"
    team.wait_trained(run)
