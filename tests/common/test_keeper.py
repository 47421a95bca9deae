"""What keepers clear away after those who could not."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import RefreshToken
from common.claims import claim
from common.diagnosis import keeper_is_running
from common.jobs import JobStatus
from common.keeper import ADVISORY_LOCK
from common.leftovers import attempt_folder, remove_leftovers
from common.presence import LOCK
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import make_person
from tests.common.test_claims import queue_versions
from tests.processes import start_manage

pytestmark = pytest.mark.django_db(transaction=True)


def aged(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def folder(home: Path, name: str) -> Path:
    made = home / "attempts" / name
    (made / "0001").mkdir(parents=True)
    return aged(made, 3600)


def test_the_work_folder_of_an_ended_job_goes_and_that_of_another_stays(home: Path) -> None:
    queued, ended, fresh = queue_versions(make_person("Alice"), 3)
    with operator():
        for version in (ended, fresh):
            DatasetVersion.objects.filter(pk=version.pk).move(JobStatus.CANCELLED)
        DatasetVersion.objects.filter(pk=ended.pk).update(finished_at=timezone.now() - timedelta(minutes=2))
    kept, gone, stranger = folder(home, str(queued.pk)), folder(home, str(ended.pk)), folder(home, "no-id")
    just_ended = folder(home, str(fresh.pk))
    remove_leftovers([DatasetVersion])
    assert [path.exists() for path in (kept, gone, stranger, just_ended)] == [True, False, False, True]


@contextmanager
def another_leads() -> Iterator[None]:
    """The leader's lock is held as if by a keeper on another host."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [ADVISORY_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [ADVISORY_LOCK])


@contextmanager
def a_keeper() -> Iterator[subprocess.Popen[str]]:
    keeper = start_manage("keeper")
    try:
        yield keeper
        keeper.terminate()
        keeper.communicate(timeout=30)
        assert keeper.returncode == 0
    finally:
        keeper.kill()
        keeper.wait()


def eventually(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(0.05)


def test_a_keeper_that_does_not_lead_looks_after_its_own_host(home: Path) -> None:
    alice = make_person("Alice")
    ended, lost = queue_versions(alice, 2)
    with operator():
        DatasetVersion.objects.filter(pk=ended.pk).move(JobStatus.CANCELLED)
        DatasetVersion.objects.filter(pk=ended.pk).update(finished_at=timezone.now() - timedelta(minutes=2))
        RefreshToken.objects.create(user=alice.user, token_sha256="0", expires_at=timezone.now() - timedelta(days=2))
    left = folder(home, str(ended.pk))
    assert claim(DatasetVersion, f"{socket.gethostname()}:1")
    attempt_folder(lost.pk, 1).mkdir(parents=True)
    (attempt_folder(lost.pk, 1) / LOCK).touch()  # held by nobody any more

    def is_queued() -> bool:
        with operator():
            return DatasetVersion.objects.filter(pk=lost.pk, status=JobStatus.QUEUED).exists()

    def expired_tokens() -> int:
        with operator():
            return RefreshToken.objects.filter(token_sha256="0").count()

    with ExitStack() as another:
        another.enter_context(another_leads())
        with a_keeper():
            eventually(lambda: is_queued() and not left.exists())
            assert expired_tokens() == 1
            another.close()
            eventually(lambda: expired_tokens() == 0)  # it leads now


@pytest.mark.faults
@pytest.mark.slow
def test_a_keeper_that_stands_still_leads_no_more() -> None:
    """Or another one, and whoever asks whether one runs, would wait for it for ever."""
    with a_keeper() as keeper:
        eventually(keeper_is_running)
        keeper.send_signal(signal.SIGSTOP)
        stopped_at = time.monotonic()
        eventually(lambda: not keeper_is_running())
        assert 20 < time.monotonic() - stopped_at < 40
        keeper.send_signal(signal.SIGCONT)
        eventually(keeper_is_running)
