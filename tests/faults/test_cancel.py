"""A cancel at each stage of a run: CANCELLED, nothing left, and no write of its trainer later than 35 s after."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SILENT_AFTER_S = 35.0
ADAPTERS = "SELECT id FROM training_adapter WHERE training_run_id = %s"


def assert_cancelled(team: Team, run: str, asked_at: float, within_s: float = 20.0) -> None:
    """It has ended as CANCELLED, and its files have gone; its trainer, if there was one, has gone in time."""
    platform = team.platform
    assert team.wait_ended(run, within_s)["status"] == "CANCELLED"
    assert ledger.select(platform, ADAPTERS, ledger.job_id(run)) == []
    deadline = time.monotonic() + 10
    while ledger.attempts_folder(platform, run).exists() or platform.all("trainer"):
        assert time.monotonic() < deadline, "something is left"
        time.sleep(0.05)
    assert all(seen.at < asked_at + SILENT_AFTER_S for seen in team.seen(run))


def cancel(team: Team, run: str, expected: str) -> float:
    """Returns when it was asked for."""
    asked_at = time.monotonic()
    assert team.cancel(run) == expected
    return asked_at


@contextmanager
def slow_to_read(path: Path) -> Iterator[Callable[[], None]]:
    """A pipe takes the file's place: whoever reads it waits until it is let through."""
    beside = path.with_name("beside")
    path.rename(beside)
    os.mkfifo(path)

    def let_through() -> None:
        with path.open("wb") as pipe:  # returns once somebody reads
            pipe.write(beside.read_bytes())

    try:
        yield let_through
    finally:
        beside.replace(path)


def test_a_queued_run_is_cancelled_at_once(platform: Installation, team: Team) -> None:
    at_work = [team.start_run(steps=10_000) for _ in range(2)]  # as many as one organization may have running
    for run in at_work:
        team.wait_step(run)
    queued = team.start_run(steps=5)
    cancel(team, queued, expected="CANCELLED")
    assert team.seen(queued) == []
    asked_at = [cancel(team, run, expected="RUNNING") for run in at_work]
    for run, at in zip(at_work, asked_at, strict=True):
        assert_cancelled(team, run, at)
    assert ledger.statuses(platform, queued) == ["QUEUED", "CANCELLED"]


def test_a_run_whose_files_are_being_fetched_never_trains(platform: Installation, team: Team) -> None:
    storage = platform.home / "storage"
    query = "SELECT storage_prefix FROM datasets_datasetversion WHERE id = %s"
    (version,) = ledger.select(platform, query, ledger.job_id(team.version))
    manifest = storage / version["storage_prefix"] / "manifest.json"
    with slow_to_read(manifest) as let_through:
        run = team.start_run(steps=5)
        ledger.wait_row(platform, run, lambda row: row["status"] == "RUNNING")
        asked_at = cancel(team, run, expected="RUNNING")
        let_through()
    assert_cancelled(team, run, asked_at)
    assert team.seen(run) == []


def test_a_run_in_a_step_saves_and_ends(team: Team) -> None:
    run = team.start_run(steps=10_000, every=10_000)
    last = team.wait_step(run, step=5)
    assert_cancelled(team, run, cancel(team, run, expected="RUNNING"))
    assert [(seen.event, seen.step >= last.step) for seen in team.seen(run)][-1] == ("checkpoint", True)


def test_a_run_in_a_save_finishes_it_and_ends(team: Team) -> None:
    run = team.start_run(Script(Behaviour.SLOW_SAVE, step_ms=50), steps=10_000, every=5)
    team.wait_seen(run, lambda seen: (seen.event, seen.step) == ("saving", 5))
    asked_at = cancel(team, run, expected="RUNNING")
    assert team.seen(run)[-1].event == "saving", "it was cancelled in the save"
    assert_cancelled(team, run, asked_at)
    assert [(seen.event, seen.step) for seen in team.seen(run)][-1] == ("checkpoint", 5)


def test_a_run_whose_adapter_is_being_stored_leaves_no_adapter(injector: Injector, team: Team) -> None:
    run = team.start_run(steps=40, every=10)
    team.wait_step(run, step=20)
    worker = injector.pause("training busy worker")
    team.wait_seen(run, lambda seen: seen.event == "finished")
    asked_at = cancel(team, run, expected="RUNNING")
    injector.resume(worker)
    assert_cancelled(team, run, asked_at)
    stored = team.platform.home / "storage" / "t" / str(team.row(run)["organization_id"]) / "adapters"
    assert not list(stored.glob(f"{ledger.job_id(run)}/*"))


def test_a_trainer_that_does_not_hear_is_killed(team: Team) -> None:
    run = team.start_run(Script(Behaviour.DEAF, step_ms=50), steps=10_000, every=10)
    team.wait_step(run, step=15)
    asked_at = cancel(team, run, expected="RUNNING")
    assert_cancelled(team, run, asked_at, within_s=45)
    assert max(seen.at for seen in team.seen(run)) > asked_at + 15, "it went on until it was killed"
