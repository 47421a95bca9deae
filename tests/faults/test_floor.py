"""A trial in which too little happened gives no verdict, and says what there was too little of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from platform_site.engines.place import ROOT
from tests.faults.checker import NO_VERDICT
from tests.faults.evidence import RUN, Evidence, Job
from tests.faults.floor import lacking
from tests.faults.history import Fault, Operation, Outcome
from tests.faults.plan import Plan, PlannedFault
from tests.faults.trial import BROKEN, KEPT, Verdict

pytestmark = pytest.mark.faults

PLAN = Plan(1, 30.0, tuple(PlannedFault(at_s, "kill", "web", 0.0) for at_s in (5.0, 9.0, 20.0)))


def seen(faults: int = 2, jobs: int = 5, finished_at: float = 110.0) -> Evidence:
    return Evidence(
        jobs={"run": Job(RUN, "run", "ada@faults.test", "SUCCEEDED", "plain 50 ms", finished_at=finished_at)},
        operations=[
            *(Operation(n, "ada", "start_run", {}, 101.0, 101.1, Outcome.DONE, str(n)) for n in range(jobs)),
            Operation(7, "ada", "start_run", {}, 101.0, 101.1, Outcome.REFUSED, "no"),
            Operation(8, "ada", "look", {}, 101.0, 101.1, Outcome.DONE, "QUEUED"),
        ],
        faults=[Fault("kill", "web", 105.0 + number) for number in range(faults)],
    )


def test_half_the_faults_and_some_jobs_are_enough() -> None:
    assert lacking(seen(), PLAN) == []


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (seen(faults=1), "only 1 of 3 faults came about"),
        (seen(faults=0), "only 0 of 3 faults came about"),
        (seen(jobs=4), "only 4 jobs were acknowledged, and 5 are the least"),
        (seen(finished_at=104.0), "no job succeeded after the first fault"),
    ],
)
def test_less_is_no_verdict(evidence: Evidence, said: str) -> None:
    assert lacking(evidence, PLAN) == [said]


def test_a_broken_promise_is_one_however_little_happened() -> None:
    def status(violations: dict[str, list[str]], lacks: list[str]) -> int:
        return Verdict(violations, lacks, [], "", 0.0).status

    assert status({}, []) == KEPT == 0
    assert status({}, ["too little"]) == NO_VERDICT
    assert status({"1": ["lost"]}, ["too little"]) == BROKEN
    assert len({KEPT, NO_VERDICT, BROKEN, 1}) == 4, "1 is how Python ends with an error"


@pytest.mark.slow
def test_who_is_asked_to_stop_has_no_verdict(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.checker", "--seed=1", "--folder", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PLATFORM_HOME": str(tmp_path / "home")}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as checker:  # fmt: skip
        assert checker.stdout is not None
        assert checker.stdout.readline() == "seed 1\n"
        checker.send_signal(signal.SIGTERM)
        try:
            _, said = checker.communicate(timeout=60)
        finally:
            checker.kill()
    assert (checker.returncode, said.splitlines()[:1]) == (NO_VERDICT, ["asked to stop"])
