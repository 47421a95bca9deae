"""Moving a job's files: the lease lasts meanwhile, and nobody waits for what is not wanted any more."""

from __future__ import annotations

import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings

from common import blobs, moving
from common.jobs import JobStatus, Lease, request_cancel
from common.supervision import Work, work_through
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import make_person
from tests.common.test_claims import queue_versions
from tests.common.test_supervision import CHILDREN, job, job_in_scope, working
from tests.processes import start_python

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def version() -> DatasetVersion:
    return queue_versions(make_person("Alice"), 1)[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CHILDREN))


@pytest.mark.parametrize("slow", ["prepare", "store"])
def test_the_lease_is_renewed_while_files_are_moved(version: DatasetVersion, monkeypatch: Any, slow: str) -> None:
    monkeypatch.setattr(moving, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(moving, "LOOK_EVERY_S", 0.05)
    leases = []

    def move_files() -> None:
        for _ in range(2):
            leases.append(job(version).lease_until)
            time.sleep(1)

    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        work = working("steps", steps=1, rows=1)(version, lease, folder)
        if slow == "prepare":
            move_files()
            return work
        return replace(work, store=lambda folder, result: move_files() or result)

    work_through(DatasetVersion, prepare)
    assert leases[0] < leases[1]
    assert job(version).status == JobStatus.SUCCEEDED


def test_a_lease_lost_while_files_are_moved_ends_the_attempt(version: DatasetVersion, monkeypatch: Any) -> None:
    monkeypatch.setattr(moving, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(moving, "LOOK_EVERY_S", 0.05)

    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        with operator():  # another worker has it by now
            DatasetVersion.objects.filter(pk=version.pk).update(fence=lease.fence + 1)
        time.sleep(1)
        return working("steps", steps=1, rows=1)(version, lease, folder)

    with pytest.raises(SystemExit):
        work_through(DatasetVersion, prepare)
    assert (job(version).status, job(version).rows_kept) == ("RUNNING", None)


@pytest.mark.parametrize("phase", ["prepare", "store"])
@pytest.mark.parametrize("end", ["stop", "cancel"])
def test_moving_files_ends_when_nobody_wants_them_from_this_worker(
    version: DatasetVersion, phase: str, end: str, tmp_path: Path
) -> None:
    environment = {"PYTHONPATH": f"{django_settings.BASE_DIR}:{CHILDREN}", "PHASE": phase, "MARK": str(tmp_path / "m")}
    worker = start_python(MOVING, **environment)
    give_up_at = time.monotonic() + 30
    while not (tmp_path / "m").exists():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)
    asked_at = time.monotonic()
    if end == "stop":
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=20) == -signal.SIGTERM
        assert (job(version).status, job(version).unproductive_attempts) == ("QUEUED", 0)
    else:
        with operator():
            request_cancel(job_in_scope(version))
        assert worker.wait(timeout=20) == 0
        assert job(version).status == JobStatus.CANCELLED
    assert time.monotonic() - asked_at < 10


def test_what_is_stored_under_a_lost_lease_goes(version: DatasetVersion, monkeypatch: Any, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")

    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        def store(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
            blobs.put(f"{version.artefacts}/{lease.fence:04d}/result", tmp_path / "f")
            with operator():  # another worker has it by now
                DatasetVersion.objects.filter(pk=version.pk).update(fence=lease.fence + 1)
            return result

        return replace(working("steps", steps=1, rows=1)(version, lease, folder), store=store)

    with pytest.raises(SystemExit):
        work_through(DatasetVersion, prepare)
    assert blobs.folders(version.artefacts) == []


MOVING = """
import os, time
from pathlib import Path
from common import supervision
from common.supervision import Work, work_through
from datasets.models import DatasetVersion
supervision.STORE_PATIENCE_S = 1.0
def move():
    Path(os.environ["MARK"]).touch()
    time.sleep(60)
def prepare(version, lease, folder):
    if os.environ["PHASE"] == "prepare":
        move()
    return Work(
        module="steps", orders={"steps": 1, "rows": 1}, succeeded=lambda version, result: None,
        store=lambda folder, result: move(),
    )
work_through(DatasetVersion, prepare)
"""
