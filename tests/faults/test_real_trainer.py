"""The real trainer under the platform's faults: what it makes is bit-equal to what nobody interrupted, and damage is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from platform_site.demo import operations
from tests.faults import ledger
from tests.faults.api import RUN, Refused, Unclear
from tests.faults.disk import Tear, tear
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.team import Team
from training.trainer.artifact import sha256_of

pytestmark = [pytest.mark.faults, pytest.mark.slow]

REQUEUED_WITHIN_S = 75.0
STOPPED_WITHIN_S = 30.0
STEPS, EVERY = 200, 5  # some seconds on the fastest machine
CONFIG = {
    "epochs": 100,
    "maxSteps": STEPS,
    "checkpointEverySteps": EVERY,
    "batchSize": 1,
    "maxSequenceTokens": 64,
    "loraRank": 2,
    "learningRate": 0.01,
    "seed": 7,
}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    root = tmp_path_factory.mktemp("real") / "platform"
    one_thread = {"TRAINER_THREADS": "1"}
    with Installation(root, training_workers=1, real_trainer=True, inference=True, environment=one_thread) as platform:
        yield platform


@pytest.fixture(scope="module")
def team(real: Installation) -> Iterator[Team]:
    with Team(real) as team:
        yield team


def start(team: Team) -> str:
    run = {"datasetVersionId": team.version, "name": "Adds", "config": CONFIG}
    return str(team.call(team.api.ask(RUN.start, input=run))["id"])


def wait_saved(team: Team, run: str, step: int) -> dict[str, Any]:
    """The run's row once it has made some steps beyond a checkpoint of `step` or a later one."""
    return ledger.wait_row(team.platform, run, lambda row: row["step"] > step, timeout_s=120)


def weights(platform: Installation, run: str) -> str:
    return sha256_of(ledger.adapter_file(platform, run))


@pytest.fixture(scope="module")
def straight(real: Installation, team: Team) -> str:
    """The adapter that two runs without interruption make alike."""
    runs = [start(team), start(team)]
    assert [team.wait_ended(run, 240)["status"] for run in runs] == ["SUCCEEDED"] * 2
    first, second = (weights(real, run) for run in runs)
    assert first == second
    return first


def assert_resumed(team: Team, run: str, straight: str) -> None:
    ended = team.wait_ended(run, 240)
    assert (ended["status"], ended["attempt"], ended["step"]) == ("SUCCEEDED", 2, STEPS)
    texts = [event["data"].get("text", "") for event in ledger.events(team.platform, run)]
    (resumed,) = [text for text in texts if text.startswith("Going on from step ")]
    assert int(resumed.rpartition(" ")[2]) >= 2 * EVERY
    assert weights(team.platform, run) == straight


def test_a_trainer_killed_in_a_step(real: Installation, team: Team, straight: str) -> None:
    run = start(team)
    wait_saved(team, run, step=2 * EVERY + 1)
    Injector(real).kill("trainer")
    killed_at = time.monotonic()
    ledger.wait_row(real, run, lambda row: row["fence"] == 2, REQUEUED_WITHIN_S)
    print(f"requeued and claimed after {time.monotonic() - killed_at:.1f} s")
    assert_resumed(team, run, straight)


def test_a_platform_stopped_while_it_trains(real: Installation, team: Team, straight: str) -> None:
    run = start(team)
    wait_saved(team, run, step=2 * EVERY + 1)
    asked_at = time.monotonic()
    assert real.stop() == 0
    assert time.monotonic() - asked_at < STOPPED_WITHIN_S
    assert real.processes() == []
    row = team.row(run)
    assert (row["status"], row["lease_owner"], row["lease_until"], row["unproductive_attempts"]) == (
        "QUEUED",
        "",
        None,
        0,
    )
    real.start()
    real.wait_ready()
    assert_resumed(team, run, straight)


def predict(team: Team, run: str) -> dict[str, Any]:
    """Asked again for as long as the server loads its model."""
    adapter = team.call(team.api.ask(operations.RUN, id=run))["adapter"]["id"]
    deadline = time.monotonic() + 120
    while True:
        try:
            asked = {"adapterId": adapter, "prompt": "def add_1(value):\n", "maxNewTokens": 4}
            return dict(team.call(team.api.ask(operations.PREDICT, input=asked)))
        except Unclear:
            assert time.monotonic() < deadline
            time.sleep(1)


def test_a_damaged_adapter_is_never_used(real: Installation, team: Team, straight: str) -> None:
    whole, damaged = start(team), start(team)
    assert [team.wait_ended(run, 240)["status"] for run in (whole, damaged)] == ["SUCCEEDED"] * 2
    tear(ledger.adapter_file(real, damaged), Tear.FLIP, Random(1))
    with pytest.raises(Refused) as refusal:
        predict(team, damaged)
    assert refusal.value.code == "ADAPTER_DIGEST_MISMATCH"
    assert predict(team, whole)["adapterDigest"]
