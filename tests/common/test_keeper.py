"""What the keeper clears away after those who could not."""

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from common.jobs import JobStatus
from common.leftovers import remove_leftovers
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import make_person
from tests.common.test_claims import queue_versions

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


def test_an_upload_that_nobody_goes_on_sending_goes(home: Path) -> None:
    incoming = home / "incoming"
    incoming.mkdir()
    old, new = incoming / "old", incoming / "new"
    for path, age_s in [(old, 3700), (new, 3500)]:
        path.write_bytes(b"x")
        aged(path, age_s)
    remove_leftovers([])
    assert (old.exists(), new.exists()) == (False, True)
