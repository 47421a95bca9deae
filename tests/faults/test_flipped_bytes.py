"""A byte flipped in what is stored: digests tell, and what was damaged is not used."""

from __future__ import annotations

from random import Random

import pytest

from tests.faults import ledger
from tests.faults.disk import Tear, tear
from tests.faults.installation import Installation
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

PREFIX = "SELECT storage_prefix FROM datasets_datasetversion WHERE id = %s"


@pytest.mark.parametrize("how", [Tear.FLIP, Tear.TRUNCATE])
def test_a_damaged_shard_fails_its_run_typed(platform: Installation, how: Tear) -> None:
    with Team(platform) as team:  # whose data are of no use from then on
        shard = damage(platform, team, how)
        run = team.start_run(steps=5)
        ended = team.wait_ended(run)
    assert (ended["status"], ended["errorCode"], ended["attempt"]) == ("FAILED", "DATA_CORRUPT", 1)
    assert shard in ended["errorMessage"]
    assert team.seen(run) == [], "nobody trained on it"


def damage(platform: Installation, team: Team, how: Tear) -> str:
    """Returns the shard's name."""
    (version,) = ledger.select(platform, PREFIX, ledger.job_id(team.version))
    shard = next((platform.home / "storage" / version["storage_prefix"]).glob("train*"))
    tear(shard, how, Random(1))
    return shard.name
