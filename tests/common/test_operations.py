"""What operators do to jobs: cancel, and take from a worker that is gone or hangs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from django.conf import settings
from django.db import connection

from common import operations
from common.claims import claim
from common.errors import Invalid
from common.jobs import Job, JobStatus, Lease
from common.leftovers import attempt_folder
from common.queues import connect
from common.supervision import EXIT_LEASE_LOST
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.cast import make_person
from tests.common.test_claims import queue_versions
from tests.common.test_supervision import CHILDREN, WORKER, statuses, wait_for_child
from tests.processes import start_python

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def version() -> DatasetVersion:
    return queue_versions(make_person("Alice"), 1)[0]


@pytest.fixture
def child(version: DatasetVersion) -> Iterator[subprocess.Popen[bytes]]:
    """A process group of its own with the attempt's folder as its argument, as a job's child is."""
    folder = str(attempt_folder(version.pk, 1))
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)", folder], start_new_session=True
    ) as process:
        yield process
        process.kill()


def fresh(version: DatasetVersion) -> Any:
    with operator():
        return DatasetVersion.objects.get(pk=version.pk)


def begin(version: DatasetVersion, child: subprocess.Popen[bytes] | None = None, host: str | None = None) -> Lease:
    lease = claim(DatasetVersion, "here:1")
    assert lease and lease.job_id == version.pk
    if child is not None:
        process = {"host": host or socket.gethostname(), "pid": child.pid}
        with operator():
            DatasetVersion.objects.held(lease).update(process=process)
    return lease


def operate(verb: str, version: DatasetVersion) -> str:
    with operator():
        done: str = getattr(operations, verb)(DatasetVersion.objects.get(pk=version.pk), "command")
    return done


def refused(verb: str, version: DatasetVersion) -> str:
    """The reason, once nothing has changed."""
    before = vars(fresh(version)) | {"_state": None}
    with pytest.raises(Invalid) as refusal:
        operate(verb, version)
    assert vars(fresh(version)) | {"_state": None} == before
    return refusal.value.message


def rings() -> int:
    with connect() as client:
        return int(client.llen("django_q:datasets:q"))  # type: ignore[arg-type]


def test_a_running_job_is_taken_from_its_worker_at_no_cost_of_an_attempt(
    version: DatasetVersion, child: subprocess.Popen[bytes]
) -> None:
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(unproductive_attempts=2)
    lease, heard = begin(version, child), rings()
    assert fresh(version).unproductive_attempts == 3
    assert operate("requeue", version) == "queued again"
    assert child.wait(timeout=5) == -signal.SIGKILL
    job = fresh(version)
    assert (job.status, job.unproductive_attempts, job.attempt) == ("QUEUED", 2, 1)
    assert (job.lease_owner, job.lease_until, job.process) == ("", None, None)
    with operator():
        last = job.event_log.last()
        assert (last.data["status"], last.data["reason"]) == ("QUEUED", "An operator took it from its worker.")
        assert DatasetVersion.objects.held(lease).move(JobStatus.SUCCEEDED) is None
    assert rings() == heard + 1
    assert begin(version).fence == lease.fence + 1


def test_its_worker_sees_the_child_die_and_counts_no_lost_attempt(version: DatasetVersion) -> None:
    worker = start_python(WORKER.format(module="waits"), PYTHONPATH=f"{settings.BASE_DIR}:{CHILDREN}")
    child = wait_for_child(version)
    with operator():
        assert operations.requeue(DatasetVersion.objects.get(pk=version.pk), "command") == "queued again"
        DatasetVersion.objects.filter(pk=version.pk).update(due_at="2100-01-01T00:00Z")  # or it would begin it anew
        assert psutil.pid_exists(child), "nothing is done before it is sure"
    assert worker.wait(timeout=20) == EXIT_LEASE_LOST
    assert not psutil.pid_exists(child)
    assert (fresh(version).status, fresh(version).unproductive_attempts) == ("QUEUED", 0)
    assert statuses(version) == ["RUNNING", "QUEUED"]


def test_where_it_cannot_be_committed_its_child_goes_on(
    version: DatasetVersion, child: subprocess.Popen[bytes]
) -> None:
    begin(version, child)
    with pytest.raises(ZeroDivisionError), operator():  # noqa: PT012
        assert operations.requeue(DatasetVersion.objects.get(pk=version.pk), "command") == "queued again"
        raise ZeroDivisionError
    assert (fresh(version).status, child.poll()) == ("RUNNING", None)


def test_one_that_was_to_be_cancelled_is_cancelled(version: DatasetVersion) -> None:
    begin(version)
    operate("cancel", version)
    assert operate("requeue", version) == "cancelled, as had been asked"
    assert fresh(version).status == "CANCELLED"


def test_of_two_operators_one_requeues_it(version: DatasetVersion) -> None:
    begin(version)
    both = threading.Barrier(2)

    def requeue() -> str:
        try:
            with operator():
                job: Job = DatasetVersion.objects.get(pk=version.pk)
                both.wait(10)
                return operations.requeue(job, "command")
        except Invalid as refusal:
            return refusal.message
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as operators:
        said = [operators.submit(requeue) for _ in range(2)]
    assert sorted(one.result() for one in said) == ["It is queued already.", "queued again"]
    assert statuses(version) == ["RUNNING", "QUEUED"]


def test_one_that_has_been_begun_anew_since_the_operator_looked_is_left_alone(version: DatasetVersion) -> None:
    begin(version)
    seen = fresh(version)
    operate("requeue", version)
    begin(version)
    with operator(), pytest.raises(Invalid, match="begun anew"):
        operations.requeue(seen, "command")
    assert fresh(version).status == "RUNNING"


def test_a_child_on_another_host_cannot_be_killed_from_here(
    version: DatasetVersion, child: subprocess.Popen[bytes]
) -> None:
    begin(version, child, host="elsewhere")
    assert operate("requeue", version) == (
        "queued again; its old child on elsewhere ends within a minute, and may write nothing more"
    )
    assert child.poll() is None


def test_what_does_not_run_is_not_requeued(version: DatasetVersion) -> None:
    assert refused("requeue", version) == "It is queued already."
    operate("cancel", version)
    final = "It has ended as CANCELLED, and a terminal state is final: start a new one instead."
    assert refused("requeue", version) == final
    assert refused("cancel", version) == final


def test_cancel_ends_a_queued_job_and_asks_a_running_one_once(version: DatasetVersion) -> None:
    begin(version)
    assert operate("cancel", version) == "asked to stop, which may take 30 seconds"
    assert (fresh(version).status, fresh(version).cancel_requested_at is not None) == ("RUNNING", True)
    assert refused("cancel", version) == "It has been asked to stop already; requeue it if its worker does not hear."
    (queued,) = queue_versions(make_person("Charlie"), 1)
    assert operate("cancel", queued) == "cancelled"
    assert fresh(queued).status == "CANCELLED"
