"""A worker, its child, and what becomes of the job when either of them is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.conf import settings as django_settings
from django.db import connection

from common import blobs, jobs, keeper, supervision
from common.claims import claim
from common.jobs import JobStatus, Lease, request_cancel
from common.keeper import requeue_lost
from common.leftovers import attempt_folder
from common.presence import present
from common.supervision import NICENESS, Refused, Work, work_through
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import make_person
from tests.common.test_claims import queue_versions
from tests.processes import start_python

pytestmark = pytest.mark.django_db(transaction=True)

CHILDREN = Path(__file__).parent / "children"


@pytest.fixture
def version() -> DatasetVersion:
    return queue_versions(make_person("Alice"), 1)[0]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CHILDREN))
    monkeypatch.setattr(jobs, "REQUEUE_DELAY", timedelta(0))
    monkeypatch.setattr(jobs, "RENEWAL_GRACE", timedelta(0))
    monkeypatch.setattr(keeper, "CONFIRMED_AFTER_S", 0.0)


def job(version: DatasetVersion) -> DatasetVersion:
    with operator():
        return DatasetVersion.objects.get(pk=version.pk)


def statuses(version: DatasetVersion) -> list[str]:
    with operator():
        return list(
            version.event_log.filter(kind="StatusChanged").order_by("sequence").values_list("data__status", flat=True)
        )


def working(module: str, **orders: Any) -> Any:
    """A `prepare` for work_through whose child is one of children/."""

    def succeeded(version: DatasetVersion, result: dict[str, Any]) -> None:
        DatasetVersion.objects.filter(pk=version.pk).update(rows_kept=result["rows"])

    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        return Work(module=module, orders=orders, succeeded=succeeded)

    return prepare


def test_a_child_that_succeeds_ends_the_job_with_its_result_and_all_its_events(version: DatasetVersion) -> None:
    work_through(DatasetVersion, working("steps", steps=5, rows=7))
    ended = job(version)
    assert (ended.status, ended.rows_kept, ended.progress, ended.error_code) == ("SUCCEEDED", 7, 0.5, None), (
        "parsing is half of it"
    )
    assert ended.lease_until is None and ended.process is None and ended.finished_at is not None
    with operator():
        log = list(version.event_log.order_by("sequence").values_list("sequence", "kind", "data__progress"))
    assert log == [
        (1, "StatusChanged", None),
        *((number + 1, "StepProgressed", number / 5) for number in range(1, 6)),
        (7, "StatusChanged", None),
    ]
    assert not (django_settings.ATTEMPTS_ROOT / str(version.pk)).exists()


def test_a_child_gives_way_to_whoever_answers_people(version: DatasetVersion) -> None:
    work_through(DatasetVersion, working("priority"))
    assert job(version).rows_kept == min(os.getpriority(os.PRIO_PROCESS, 0) + NICENESS, 19)


def test_a_worker_gives_back_memory_after_each_job(version: DatasetVersion, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[None] = []
    monkeypatch.setattr(supervision, "_give_back", lambda: given.append(None))
    work_through(DatasetVersion, working("priority"))
    assert given == [None]


def test_a_failure_that_the_child_explains_is_the_jobs(version: DatasetVersion) -> None:
    work_through(
        DatasetVersion, working("steps", steps=1, rows=0, fail=["NO_USABLE_ROWS", "None of 3 rows can be used."])
    )
    ended = job(version)
    assert (ended.status, ended.error_code, ended.error_message, ended.attempt) == (
        "FAILED",
        "NO_USABLE_ROWS",
        "None of 3 rows can be used.",
        1,
    )


def test_a_refusal_of_the_preparation_is_the_jobs(version: DatasetVersion) -> None:
    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        raise Refused("DATA_CORRUPT", "Make the version again.")

    work_through(DatasetVersion, prepare)
    assert (job(version).status, job(version).error_code) == ("FAILED", "DATA_CORRUPT")


def test_a_child_that_always_dies_is_poison_after_three_attempts(version: DatasetVersion) -> None:
    work_through(DatasetVersion, working("dies"))
    ended = job(version)
    assert (ended.status, ended.error_code, ended.attempt) == ("FAILED", "POISON", 3)
    assert "killed by SIGKILL" in ended.error_message
    assert statuses(version) == ["RUNNING", "QUEUED", "RUNNING", "QUEUED", "RUNNING", "FAILED"]


def test_a_child_that_closes_its_pipe_and_succeeds_has_succeeded(version: DatasetVersion, monkeypatch: Any) -> None:
    monkeypatch.setattr(supervision, "HEARTBEAT_S", 0.0)
    work_through(DatasetVersion, working("closes_pipe"))
    ended = job(version)
    assert (ended.status, ended.rows_kept, ended.attempt) == ("SUCCEEDED", 3, 1)


def test_a_cancel_that_meets_a_requeue_is_not_lost(version: DatasetVersion) -> None:
    lease = claim(DatasetVersion, "worker")
    assert lease
    with operator():
        request_cancel(job_in_scope(version))
        jobs.requeue(DatasetVersion.objects.held(lease), "lost")
    assert job(version).status == JobStatus.CANCELLED


def test_a_cancelled_third_attempt_is_cancelled_and_no_poison(version: DatasetVersion) -> None:
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(unproductive_attempts=2)
    lease = claim(DatasetVersion, "worker")
    assert lease
    with operator():
        request_cancel(job_in_scope(version))
        jobs.requeue(DatasetVersion.objects.held(lease), "lost")
    assert (job(version).status, job(version).error_code) == ("CANCELLED", None)


def test_a_job_cancelled_while_its_files_are_fetched_starts_no_child(version: DatasetVersion) -> None:
    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        with operator():
            request_cancel(job_in_scope(version))
        return working("steps", steps=1, rows=1)(version, lease, folder)

    work_through(DatasetVersion, prepare)
    assert statuses(version) == ["RUNNING", "CANCELLED"]
    with operator():
        assert not version.event_log.filter(kind="StepProgressed").exists()


def test_a_job_cancelled_while_its_result_is_stored_leaves_nothing_in_storage(version: DatasetVersion) -> None:
    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        def store(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
            blobs.put(f"{version.artefacts}/{lease.fence:04d}/result", folder / "result.json")
            with operator():
                request_cancel(job_in_scope(version))
            return result

        return replace(working("steps", steps=1, rows=1)(version, lease, folder), store=store)

    work_through(DatasetVersion, prepare)
    assert (job(version).status, job(version).rows_kept) == ("CANCELLED", None)
    assert blobs.folders(version.artefacts) == []


def test_what_a_lost_attempt_stored_goes_when_a_later_one_succeeds(version: DatasetVersion, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")

    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        blobs.put(f"{version.artefacts}/{lease.fence:04d}/result", tmp_path / "f")
        return working("steps" if lease.attempt == 2 else "dies", steps=1, rows=1)(version, lease, folder)

    work_through(DatasetVersion, prepare)
    assert (job(version).status, job(version).fence) == ("SUCCEEDED", 2)
    assert blobs.folders(version.artefacts) == ["0002"]


def test_a_full_disk_is_told_and_not_tried_again(version: DatasetVersion) -> None:
    def prepare(version: DatasetVersion, lease: Lease, folder: Path) -> Work:
        with Path("/dev/full").open("w") as full:  # the kernel's own ENOSPC
            full.write("x")
        raise AssertionError

    work_through(DatasetVersion, prepare)
    assert (job(version).status, job(version).error_code, job(version).attempt) == ("FAILED", "DISK_FULL", 1)


def test_a_cancelled_job_stops_its_child(version: DatasetVersion) -> None:
    worker = start_python(WORKER.format(module="waits"), PYTHONPATH=f"{django_settings.BASE_DIR}:{CHILDREN}")
    child = wait_for_child(version)
    with operator():
        request_cancel(job_in_scope(version))
    assert worker.wait(timeout=20) == 0
    assert job(version).status == JobStatus.CANCELLED
    assert not psutil.pid_exists(child)


def test_a_queued_job_is_cancelled_at_once_and_an_ended_one_stays(version: DatasetVersion) -> None:
    with operator():
        assert request_cancel(job_in_scope(version)).status == JobStatus.CANCELLED
        assert request_cancel(job_in_scope(version)).status == JobStatus.CANCELLED
    assert statuses(version) == ["CANCELLED"]
    assert claim(DatasetVersion, "worker") is None


def test_a_worker_told_to_stop_gives_the_job_back_at_no_cost(version: DatasetVersion) -> None:
    worker = start_python(WORKER.format(module="waits"), PYTHONPATH=f"{django_settings.BASE_DIR}:{CHILDREN}")
    child = wait_for_child(version)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == -signal.SIGTERM
    given_back = job(version)
    assert (given_back.status, given_back.unproductive_attempts, given_back.lease_owner) == ("QUEUED", 0, "")
    assert not psutil.pid_exists(child)


def test_a_killed_worker_takes_its_child_along_and_the_keeper_requeues_the_job_at_once(
    version: DatasetVersion,
) -> None:
    worker = start_python(WORKER.format(module="waits"), PYTHONPATH=f"{django_settings.BASE_DIR}:{CHILDREN}")
    child = wait_for_child(version)
    requeue_lost(DatasetVersion)
    assert job(version).status == JobStatus.RUNNING, "its worker lives"
    worker.kill()
    worker.wait()
    gone_by = time.monotonic() + 10
    while psutil.pid_exists(child) and time.monotonic() < gone_by:
        time.sleep(0.05)
    assert not psutil.pid_exists(child)
    requeue_lost(DatasetVersion)
    assert (job(version).status, job(version).lease_owner) == ("QUEUED", "")


def test_a_worker_on_another_host_is_lost_when_its_lease_has_run_out(version: DatasetVersion) -> None:
    assert claim(DatasetVersion, "elsewhere:1")
    requeue_lost(DatasetVersion)
    assert job(version).status == JobStatus.RUNNING
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(lease_until="2000-01-01T00:00Z")
    requeue_lost(DatasetVersion)
    assert (job(version).status, job(version).lease_owner) == ("QUEUED", "")


def test_when_the_databases_clock_is_set_forward_holders_have_time_to_renew(
    version: DatasetVersion, monkeypatch: Any
) -> None:
    """Then all leases run out at once."""
    monkeypatch.setattr(keeper, "CONFIRMED_AFTER_S", 0.3)
    assert claim(DatasetVersion, "elsewhere:1")
    for second in range(3):  # renewed each time before the keeper is sure, and overdue again
        with operator():
            DatasetVersion.objects.filter(pk=version.pk).update(lease_until=f"2000-01-01T00:00:0{second}Z")
        for _ in range(2):
            requeue_lost(DatasetVersion)
            assert job(version).status == JobStatus.RUNNING
            time.sleep(0.2)
    requeue_lost(DatasetVersion)
    assert job(version).status == JobStatus.QUEUED


def test_a_row_that_somebody_has_locked_holds_up_no_other(monkeypatch: Any) -> None:
    versions = [*queue_versions(make_person("Alice"), 1), *queue_versions(make_person("Bob"), 1)]
    for _ in versions:
        assert claim(DatasetVersion, "elsewhere:1")
    locked, taken, done = versions[0], threading.Event(), threading.Event()

    def hold() -> None:
        with operator():
            DatasetVersion.objects.select_for_update().get(pk=locked.pk)
            taken.set()
            done.wait(30)
        connection.close()

    with operator():
        DatasetVersion.objects.update(lease_until="2000-01-01T00:00Z")
    with connection.cursor() as cursor:
        cursor.execute("SHOW lock_timeout")
        assert cursor.fetchone() == ("5s",), "of every connection of the platform"
        cursor.execute("SET lock_timeout = 200")
    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert taken.wait(10)
        requeue_lost(DatasetVersion)
    finally:
        done.set()
        holder.join()
        connection.close()
    assert [job(version).status for version in versions] == ["RUNNING", "QUEUED"]


def test_a_host_that_cannot_begin_a_job_puts_it_off_and_takes_no_other(version: DatasetVersion, home: Path) -> None:
    other = queue_versions(make_person("Bob"), 1)[0]
    django_settings.ATTEMPTS_ROOT.write_text("a file where the folder should be")
    worker = start_python(WORKER.format(module="waits"), ATTEMPTS=str(django_settings.ATTEMPTS_ROOT))
    assert worker.wait(timeout=30) == supervision.EXIT_HOST_BROKEN
    states = sorted((job(each).attempt, job(each).status, job(each).unproductive_attempts) for each in (version, other))
    assert states == [(0, "QUEUED", 0), (1, "QUEUED", 0)]


def test_after_a_start_of_the_database_holders_have_time_to_renew(version: DatasetVersion, monkeypatch: Any) -> None:
    assert claim(DatasetVersion, "elsewhere:1")
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(lease_until="2000-01-01T00:00Z")
    monkeypatch.setattr(jobs, "RENEWAL_GRACE", timedelta(days=1))
    requeue_lost(DatasetVersion)
    assert job(version).status == JobStatus.RUNNING


def test_what_a_child_saves_after_its_workers_death_counts(version: DatasetVersion, monkeypatch: Any) -> None:
    """A third attempt that left something to go on from is no poison."""
    monkeypatch.setattr(DatasetVersion, "productive_kinds", frozenset({"StepProgressed"}))
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(unproductive_attempts=2)
    lease = claim(DatasetVersion, f"{os.uname().nodename}:1")
    assert lease and job(version).unproductive_attempts == 3
    folder = attempt_folder(version.pk, lease.fence)
    folder.mkdir(parents=True)
    with present(folder):  # a worker that dies at once
        pass
    saved = {"kind": "StepProgressed", "at": "2026-01-01T00:00:00Z", "name": "parse", "progress": 0.25}
    (folder / "events.jsonl").write_text(json.dumps(saved) + "\n")
    requeue_lost(DatasetVersion)
    given_back = job(version)
    assert (given_back.status, given_back.progress, given_back.unproductive_attempts) == ("QUEUED", 0.125, 0)


def test_the_keeper_kills_what_a_lost_lease_has_left_but_never_a_stranger(version: DatasetVersion) -> None:
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    second_attempt = str(attempt_folder(version.pk, 2))
    stranger = subprocess.Popen([*sleeping, str(attempt_folder(version.pk, 3))], start_new_session=True)
    leftover = subprocess.Popen([*sleeping, second_attempt], start_new_session=True)
    try:
        for pid in (stranger.pid, leftover.pid):
            assert claim(DatasetVersion, "lost")
            process = {"host": os.uname().nodename, "pid": pid}
            with operator():
                DatasetVersion.objects.filter(pk=version.pk).update(process=process, lease_until="2000-01-01T00:00Z")
            requeue_lost(DatasetVersion)
            assert job(version).status == JobStatus.QUEUED
        assert leftover.wait(timeout=5) == -signal.SIGKILL
        assert stranger.poll() is None
    finally:
        stranger.kill()
        leftover.kill()


WORKER = """
from pathlib import Path
from common.supervision import Work, work_through
from datasets.models import DatasetVersion
work_through(DatasetVersion, lambda version, lease, folder: Work(module="{module}", orders={{}}, succeeded=lambda version, result: None))
"""


def job_in_scope(version: DatasetVersion) -> DatasetVersion:
    return DatasetVersion.objects.get(pk=version.pk)


def wait_for_child(version: DatasetVersion) -> int:
    """The process id of the job's child, once it has said that it is at work."""
    give_up_at = time.monotonic() + 30
    while time.monotonic() < give_up_at:
        with operator():
            current = DatasetVersion.objects.get(pk=version.pk)
            at_work = current.event_log.filter(kind="StepProgressed").exists()
        if at_work:
            return int(current.process["pid"])
        time.sleep(0.05)
    raise AssertionError("the child never came to work")
