"""A disk full at upload, in a run, or at the log: a typed failure, nothing half visible, and all goes on with room."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from platform_site.demo import operations
from tests.faults import ledger
from tests.faults.api import VERSION, Refused, rows
from tests.faults.disk import Tmpfs, own_mounts
from tests.faults.injector import Injector
from tests.faults.installation import Installation
from tests.faults.proof import NotProven
from tests.faults.scripts import Behaviour, Script
from tests.faults.team import PLAIN, Team

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SLOW_SAVE = Script(Behaviour.SLOW_SAVE, step_ms=50)
PAGE_BYTES = 4096  # what a file has of a full disk already it may still fill
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [\w-]+ ")
UPLOADS = "SELECT completed_at, received_bytes, storage_key FROM datasets_upload WHERE id = %s"


@pytest.fixture(scope="module", autouse=True)
def _mounts() -> None:
    """Root can have them: where it cannot, these faults are not tested, and nobody shall take that for green."""
    try:
        own_mounts()
    except NotProven as reason:
        pytest.fail(str(reason)) if os.geteuid() == 0 else pytest.skip(str(reason))


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A platform that sees the mounts."""
    with Installation(tmp_path_factory.mktemp("roomy") / "platform") as platform:
        yield platform


@pytest.fixture
def team(roomy: Installation) -> Iterator[Team]:
    with Team(roomy) as team:
        yield team


# ---------------------------------------------------------------------------------------------- uploads


def start_upload(team: Team, content: bytes) -> dict[str, Any]:
    fields = {"fileName": "more.jsonl", "sizeBytes": len(content)}
    return dict(team.call(team.api.ask(operations.START_UPLOAD, input=fields)))


@pytest.mark.parametrize("folder", ["incoming", "storage/t"])
def test_an_upload_without_room_is_refused_and_can_be_sent_again(roomy: Installation, team: Team, folder: str) -> None:
    content = rows(15_000)  # 1.3 MB
    ticket = start_upload(team, content)
    with Tmpfs(roomy.home / folder, size_mb=1) as disk:
        with pytest.raises(Refused) as refusal:
            team.call(team.api.send_file(ticket, content))
        assert refusal.value.code == "DISK_FULL"
        assert [path for path in disk.folder.rglob("*") if path.is_file()] == []
        (row,) = ledger.select(roomy, UPLOADS, ledger.job_id(ticket["upload"]["id"]))
        assert (row["completed_at"], row["received_bytes"], row["storage_key"]) == (None, 0, "")
    team.call(team.api.send_file(ticket, content))
    (row,) = ledger.select(roomy, UPLOADS, ledger.job_id(ticket["upload"]["id"]))
    assert (roomy.home / "storage" / row["storage_key"]).read_bytes() == content


# ---------------------------------------------------------------------------------------------- runs


@contextmanager
def disk_of(team: Team, script: Script, *, steps: int, every: int) -> Iterator[tuple[str, Tmpfs]]:
    """A run whose attempts lie on a small disk of their own, which is there before its first attempt begins."""
    at_work = [team.start_run(steps=10_000) for _ in range(2)]  # as many as one organization may have running
    run = team.start_run(script, steps=steps, every=every)
    with Tmpfs(ledger.attempts_folder(team.platform, run), size_mb=8) as disk:
        assert team.seen(run) == []
        for each in at_work:
            team.cancel(each)
        yield run, disk


def assert_disk_full(team: Team, run: str) -> None:
    ended = team.wait_ended(run)
    assert (ended["status"], ended["errorCode"], ended["attempt"]) == ("FAILED", "DISK_FULL", 1)
    assert "disk" in ended["errorMessage"] and ended["adapter"] is None


def test_a_checkpoint_without_room_fails_its_run_and_no_other(roomy: Installation, team: Team) -> None:
    with disk_of(team, SLOW_SAVE, steps=100, every=10) as (run, disk):
        other = team.start_run(steps=150, every=10)
        team.wait_seen(run, lambda seen: (seen.event, seen.step) == ("checkpoint", 10))
        team.wait_seen(run, lambda seen: (seen.event, seen.step) == ("saving", 20))
        with Injector(roomy).full(disk):
            assert_disk_full(team, run)
    assert [seen.step for seen in team.seen(run) if seen.event == "checkpoint"] == [10]
    assert team.wait_trained(other)["attempt"] == 1


def test_a_log_of_events_without_room_fails_its_run_and_no_other(roomy: Installation, team: Team) -> None:
    with disk_of(team, PLAIN, steps=1000, every=1000) as (run, disk):
        other = team.start_run(steps=150, every=10)
        team.wait_step(run, step=10)
        with Injector(roomy).full(disk):
            assert_disk_full(team, run)
    sequences = [event["sequence"] for event in ledger.events(roomy, run)]
    assert sequences == list(range(1, len(sequences) + 1))
    assert team.wait_trained(other)["attempt"] == 1


def test_work_that_finds_no_room_at_all_fails_typed_and_later_work_succeeds(roomy: Installation, team: Team) -> None:
    with Tmpfs(roomy.home / "attempts", size_mb=8) as disk:
        upload = team.call(team.api.upload("other.jsonl", rows(50)))
        with Injector(roomy).full(disk):
            assert_disk_full(team, team.start_run(steps=5))
            version = team.call(team.api.create_dataset("Other", upload))
            ended = team.call(team.api.wait_ended(VERSION, version))
            assert (ended["status"], ended["errorCode"]) == ("FAILED", "DISK_FULL")
        assert team.wait_trained(team.start_run(steps=5))["attempt"] == 1


def test_an_adapter_that_cannot_be_stored_fails_its_run_and_leaves_nothing(roomy: Installation, team: Team) -> None:
    before = team.start_run(steps=5)
    team.wait_trained(before)
    run = team.start_run(steps=60, every=10)
    team.wait_step(run)
    organization = roomy.home / "storage" / "t" / str(team.row(run)["organization_id"])
    with Tmpfs(organization / "adapters" / ledger.job_id(run), size_mb=1) as disk, Injector(roomy).full(disk):
        assert_disk_full(team, run)
        assert [path for path in disk.folder.rglob("*") if path.is_file() and path.name != ".ballast"] == []
    team.wait_trained(before)  # what was stored before is as it was


# ---------------------------------------------------------------------------------------------- the log


def test_a_log_without_room_stops_nobody_and_has_no_half_lines(tmp_path: Path) -> None:
    platform = Installation(tmp_path / "platform")
    with Tmpfs(platform.home / "log", size_mb=1) as disk, platform, Team(platform) as team:
        injector, log = Injector(platform), disk.folder / "platform.log"
        with injector.full(disk):
            injector.kill("keeper")
            for _ in range(4):  # the log would have each one's mail
                assert team.wait_trained(team.start_run(steps=5))["attempt"] == 1
            platform.wait_ready()
            assert log.stat().st_size <= PAGE_BYTES, "it has grown on a full disk"
        injector.kill("keeper")
        platform.wait_ready()
        lines = log.read_text().splitlines()
        assert [line for line in lines if not LINE.match(line)] == []
        assert [line for line in lines if "keeper ended (SIGKILL)" in line]
        assert platform.stop() == 0
        assert platform.left_behind() == []
