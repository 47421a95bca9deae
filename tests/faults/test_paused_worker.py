"""A worker that is paused for 120 s while it holds a job: another one ends the job, and it changes nothing when it wakes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from platform_site.engines.place import ROOT
from tests.faults import ledger
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.process_table import Running
from tests.faults.proof import prove
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

PAUSE_S = 120.0
SLOWLY = Script(Behaviour.PLAIN, step_ms=100)


def pause_host(injector: Injector, *, trainer_too: bool) -> list[Running]:
    """Stop the whole cluster, as a suspended machine would be, and its supervisor, which would kill one that stands still.

    The worker comes first in what is returned.
    """
    worker = injector.platform.one("training busy worker")
    with_it = ("up", "guard training", "training idle worker")
    others = [each for each in injector.platform.processes() if each.role in with_it]
    others += [injector.platform.one(f"training {part}") for part in ("parent", "sentinel", "pusher", "monitor")]
    others += [injector.platform.one("trainer")] if trainer_too else []
    return [injector.pause(each) for each in [worker, *others]]


@contextmanager
def another_host(platform: Installation) -> Iterator[None]:
    """A second cluster on the same queue."""
    with platform.log.open("ab") as output:
        cluster = subprocess.Popen(
            [sys.executable, "manage.py", "cluster", "training"],
            cwd=ROOT,
            env={**platform.environment, "Q_CLUSTER_NAME": "training"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield
    finally:
        cluster.terminate()
        cluster.wait(45)


def as_recorded(platform: Installation, run: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return ledger.row(platform, run), ledger.events(platform, run)


def sleep_until(at: float) -> None:
    time.sleep(max(0.0, at - time.monotonic()))


def assert_exits(platform: Installation, run: str, worker: Running) -> None:
    """It finds that its lease is another's, and says so with its last words."""
    prove("the paused worker exits", lambda: not worker.is_there, 30)
    assert f"Lost the lease of TrainingRun {ledger.job_id(run)} (attempt 1)" in platform.log.read_text()


@pytest.mark.parametrize("trainer_too", [False, True], ids=["worker", "worker and trainer"])
def test_a_paused_worker_wakes_after_another_has_ended_its_job(tmp_path: Path, trainer_too: bool) -> None:
    with Installation(tmp_path / "platform", training_workers=1) as platform, Team(platform) as team:
        run = team.start_run(SLOWLY, steps=400, every=50)
        team.wait_step(run, step=60)
        injector = Injector(platform)
        paused_at = time.monotonic()
        host = pause_host(injector, trainer_too=trainer_too)
        with another_host(platform):
            assert team.wait_trained(run, PAUSE_S)["attempt"] == 2
            sleep_until(paused_at + PAUSE_S)
            before = as_recorded(platform, run)
            for each in host:
                injector.resume(each)
            assert_exits(platform, run, host[0])
        assert as_recorded(platform, run) == before
        assert not ledger.attempts_folder(platform, run).exists()
        assert team.wait_trained(team.start_run(steps=5))["attempt"] == 1
        assert platform.stop() == 0
        assert platform.left_behind() == []


def test_a_paused_worker_wakes_while_another_is_at_its_job(tmp_path: Path) -> None:
    with Installation(tmp_path / "platform", training_workers=1) as platform, Team(platform) as team:
        run = team.start_run(SLOWLY, steps=1200, every=50)
        team.wait_step(run, step=60)
        injector = Injector(platform)
        paused_at = time.monotonic()
        host = pause_host(injector, trainer_too=False)
        with another_host(platform):
            team.wait_seen(run, lambda seen: seen.fence == 2 and seen.event == "step", PAUSE_S)
            sleep_until(paused_at + PAUSE_S)
            for each in host:
                injector.resume(each)
            assert_exits(platform, run, host[0])
            row = team.row(run)
            assert (row["status"], row["fence"]) == ("RUNNING", 2)
            assert team.wait_trained(run, 120)["fence"] == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_stays_paused_is_replaced(tmp_path: Path, workers: int) -> None:
    with Installation(tmp_path / "platform", training_workers=workers) as platform, Team(platform) as team:
        run = team.start_run(SLOWLY, steps=400, every=50)
        team.wait_step(run, step=60)
        cluster = platform.one("training sentinel")
        worker = Injector(platform).pause("training busy worker")
        assert team.wait_trained(run, PAUSE_S + 60)["attempt"] == 2
        prove("the paused worker has been killed", lambda: not worker.is_there, 30)
        platform.wait_ready(30)  # with as many workers as before
        assert cluster.is_there, "nobody else was disturbed"
