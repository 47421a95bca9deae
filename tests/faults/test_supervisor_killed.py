"""kill -9 of web, keeper, or the supervisor: started again, or all gone with nothing left behind; then everything goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.api import RUN
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.team import Team
from tests.faults.visitor import Visitor

pytestmark = [pytest.mark.faults, pytest.mark.slow]

BACK_WITHIN_S = 30.0
ALL_GONE_WITHIN_S = 15.0


def test_the_web_processes_come_back_and_runs_never_notice(
    platform: Installation, injector: Injector, team: Team
) -> None:
    run = team.start_run(steps=60, every=10)
    heard = team.begin(_sequences(team, run))
    team.wait_step(run, step=5)
    with Visitor(team, lambda: team.api.look(RUN, run)) as visitor:
        for web in platform.all("web"):
            injector.kill(web)
        killed_at = time.monotonic()
        platform.wait_ready(BACK_WITHIN_S)
        ended = team.wait_trained(run)
    assert visitor.first_success_after(killed_at).at - killed_at < BACK_WITHIN_S
    assert {answer.status for answer in visitor.failures()} <= {None}, "nobody answered, or it was a right answer"
    assert ended["attempt"] == 1
    assert heard.result(15) == list(range(1, ended["last_sequence"] + 1))


async def _sequences(team: Team, run: str) -> list[int]:
    return [event["sequence"] async for event in team.api.watch(RUN, run)]


def test_the_keeper_comes_back_and_finds_what_was_lost_meanwhile(
    platform: Installation, injector: Injector, team: Team
) -> None:
    run = team.start_run(steps=200, every=10)
    team.wait_step(run, step=25)
    keeper = injector.kill("keeper")
    injector.kill("training busy worker")  # whose job nobody but a keeper requeues
    assert team.wait_trained(run, 75)["attempt"] == 2
    assert platform.one("keeper").pid != keeper.pid


@pytest.mark.parametrize("whom", ["up", "guard keeper", "guard web"])
def test_nothing_outlives_its_supervisor(tmp_path: Path, whom: str) -> None:
    with Installation(tmp_path / "platform") as platform, Team(platform) as team:
        running = team.start_run(steps=300, every=10)
        queued = [team.start_run(steps=5) for _ in range(3)]
        team.wait_step(running, step=25)
        before = platform.processes()
        injector = Injector(platform)
        injector.kill(whom)
        if whom == "up":
            deadline = time.monotonic() + ALL_GONE_WITHIN_S
            while left := [each.role for each in before if each.is_there]:
                assert time.monotonic() < deadline, left
                time.sleep(0.05)
            platform.start()
        platform.wait_ready()
        attempts = [team.wait_trained(run, 120)["attempt"] for run in [running, *queued]]
        assert attempts[0] == 2 if whom == "up" else attempts == [1, 1, 1, 1]
        assert platform.stop() == 0
        assert platform.left_behind() == []
