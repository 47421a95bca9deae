"""A job that always kills its worker: FAILED with POISON after three attempts, and other organizations' jobs succeed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.installation import Installation
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_kills_its_workers_is_poison_and_others_succeed(tmp_path: Path, workers: int) -> None:
    with (
        Installation(tmp_path / "platform", training_workers=workers) as platform,
        Team(platform) as team,
        Team(platform) as others,
    ):
        workers_before = {each.pid for each in platform.processes() if each.role.endswith("worker")}
        poison = team.start_run(Script(Behaviour.POISON_WORKER), steps=10)
        runs = [others.start_run(steps=40, every=10) for _ in range(3)]
        ended = team.wait_ended(poison, 180)
        assert (ended["status"], ended["errorCode"], ended["attempt"]) == ("FAILED", "POISON", 3)
        assert [seen.fence for seen in team.seen(poison) if seen.event == "started"] == [1, 2, 3]
        assert ledger.statuses(platform, poison) == ["QUEUED", *["RUNNING", "QUEUED"] * 2, "RUNNING", "FAILED"]
        assert [others.wait_trained(run, 120)["attempt"] for run in runs] == [1, 1, 1]
        killed = workers_before - {each.pid for each in platform.processes()}
        assert killed, "the job has killed nobody"
