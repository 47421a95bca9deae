"""kill -9 of an idle queue worker, or of a whole cluster: new work starts within 30 s, and no job is lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.process_table import Running, wait_for
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

NEW_WORK_WITHIN_S = 30.0


def waits_at_the_queue(worker: Running) -> bool:
    """It holds the lock of the cluster's internal queue, and takes it along."""
    return "pipe" in Path(f"/proc/{worker.pid}/wchan").read_text()


def kill_idle_worker(injector: Injector) -> float:
    """Returns when: CLOCK_MONOTONIC."""
    injector.kill(wait_for(injector.platform.home, "training idle worker", condition=waits_at_the_queue))
    return time.monotonic()


def test_new_work_starts_after_an_idle_worker_was_killed(injector: Injector, team: Team) -> None:
    team.wait_trained(team.start_run(steps=1))  # all of the queue is at work
    killed_at = kill_idle_worker(injector)
    run = team.start_run(steps=5)
    assert team.wait_step(run).at - killed_at < NEW_WORK_WITHIN_S
    team.wait_trained(run)


def test_a_run_of_the_other_worker_goes_on_after_an_idle_one_was_killed(injector: Injector, team: Team) -> None:
    running = team.start_run(steps=600, every=10)
    team.wait_step(running, step=15)
    killed_at = kill_idle_worker(injector)
    run = team.start_run(steps=5)
    assert team.wait_step(run).at - killed_at < NEW_WORK_WITHIN_S
    team.wait_trained(run)
    team.wait_trained(running, 90)


def of_the_whole_cluster(injector: Injector) -> None:
    injector.kill_cluster("training")


def of_its_parent_alone(injector: Injector) -> None:
    injector.kill("training parent")


def of_its_guard_alone(injector: Injector) -> None:
    injector.kill("guard training")


@pytest.mark.parametrize("kill", [of_the_whole_cluster, of_its_parent_alone, of_its_guard_alone])
def test_jobs_go_on_after_a_kill(tmp_path: Path, kill: Callable[[Injector], None]) -> None:
    with Installation(tmp_path / "platform", training_workers=1) as platform, Team(platform) as team:
        running = team.start_run(Script(Behaviour.PLAIN, step_ms=50), steps=100, every=10)
        queued = team.start_run(steps=5)
        team.wait_step(running, step=35)
        kill(Injector(platform))
        killed_at = time.monotonic()
        assert team.wait_step(queued).at - killed_at < NEW_WORK_WITHIN_S
        first_step = team.wait_seen(running, lambda seen: seen.event == "step" and seen.fence == 2)
        assert first_step.step > 30, "it went on from its checkpoint"
        assert first_step.at - killed_at < 75
        assert [team.wait_trained(run)["attempt"] for run in (queued, running)] == [1, 2]
