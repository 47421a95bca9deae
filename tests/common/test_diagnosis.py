"""What is said of a job that waits, works, or is stuck."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from common.claims import claim
from common.clock import ServerClock
from common.diagnosis import Counts, Diagnosis, Workers
from common.events import Event
from common.jobs import JobStatus
from common.queues import connect
from common.tenancy import operator
from tests.cast import Person, make_person
from tests.rows import make_run
from training.models import TrainingRun

pytestmark = pytest.mark.django_db(transaction=True)

S = timedelta(seconds=1)


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def cluster() -> Any:
    """A cluster of the queue, as it shows itself; those of earlier tests are shown for a while after their end."""
    with connect() as client:
        client.delete("none", *client.scan_iter("cluster:*"))

        def seen(workers: int = 1, busy: int = 0, silent_s: float | None = 1.0) -> None:
            presence = {"workers": workers, "busy": busy, "silent_s": silent_s}
            client.set("cluster:training:test:1", json.dumps(presence), ex=60)

        yield seen
        client.delete("cluster:training:test:1")


def change(run: TrainingRun, **changes: Any) -> None:
    """Write times as PostgreSQL's clock has them: a timedelta is an offset from now."""
    times = {name: ServerClock() + value for name, value in changes.items() if isinstance(value, timedelta)}
    with operator():
        TrainingRun.objects.filter(pk=run.pk).update(**{**changes, **times})


@dataclass(frozen=True)
class Roughly:
    """Equals a text whose numbers of seconds are up to three off: the test takes its time, too."""

    text: str

    def __eq__(self, other: object) -> bool:
        def near(seconds: re.Match[str]) -> str:
            return f"({'|'.join(str(int(seconds[0]) + off) for off in range(-3, 4))})"

        return re.fullmatch(re.sub(r"\d+(?=\\ s\b)", near, re.escape(self.text)), str(other)) is not None


def said(run: TrainingRun) -> tuple[str, bool, str]:
    with operator():
        diagnosis = Diagnosis(TrainingRun)
        job = diagnosis.jobs().get(pk=run.pk)
        assert diagnosis.stuck().filter(pk=run.pk).exists() == job.is_stuck
        return job.cause, job.is_stuck, diagnosis.why(job)


def begin(run: TrainingRun) -> None:
    lease = claim(TrainingRun, "here:1")
    assert lease and lease.job_id == run.pk


def log(run: TrainingRun, kind: str, ago: timedelta = timedelta(0), **data: Any) -> None:
    with operator():
        event = Event(kind, data, age=ago)
        TrainingRun.objects.filter(pk=run.pk).advance([event])


def test_a_due_job_while_a_worker_is_free(ada: Person, cluster: Callable[..., None]) -> None:
    cluster()
    run = make_run(ada)
    change(run, due_at=-3 * S)
    assert said(run) == ("NEXT", False, Roughly("due 3 s ago; a worker is free"))
    change(run, due_at=-31 * S)
    assert said(run) == ("NEXT", True, Roughly("due 31 s ago, a worker is free, and none has come"))


def test_a_due_job_while_all_workers_are_busy(ada: Person, cluster: Callable[..., None]) -> None:
    cluster(workers=2, busy=2)
    for name in ("Bob", "Charlie"):
        begin(make_run(make_person(name)))
    run = make_run(ada)
    change(run, due_at=-3600 * S)
    assert said(run) == ("ALL_BUSY", False, "waiting for a free worker (2 of 2 busy)")


def test_a_due_job_beyond_its_organizations_cap(ada: Person, cluster: Callable[..., None], settings: Any) -> None:
    settings.CONCURRENT_RUNS = 1
    cluster(workers=2, busy=1)
    begin(make_run(ada))
    run = make_run(ada)
    change(run, due_at=-3600 * S)
    assert said(run) == ("CAPPED", False, "its organization has 1 of 1 running")


def test_a_job_that_is_tried_again_later(ada: Person, cluster: Callable[..., None]) -> None:
    cluster()
    run = make_run(ada)
    begin(run)
    with operator():
        TrainingRun.objects.filter(pk=run.pk).move(JobStatus.QUEUED, reason="Its worker was lost.")
    change(run, due_at=4.4 * S)
    assert said(run) == ("NOT_DUE", False, Roughly("retried in 4 s: Its worker was lost."))


def test_without_a_worker_a_due_job_is_soon_stuck(ada: Person) -> None:
    run = make_run(ada)
    change(run, due_at=-10 * S)
    assert said(run) == ("NO_WORKER", False, Roughly("due 10 s ago; no worker of queue training is heard"))
    change(run, due_at=-31 * S)
    assert said(run) == ("NO_WORKER", True, Roughly("due 31 s ago; no worker of queue training is heard"))


def test_a_cluster_that_does_not_echo(ada: Person, cluster: Callable[..., None]) -> None:
    cluster(silent_s=7.2)
    run = make_run(ada)
    change(run, due_at=-31 * S)
    why = "due 31 s ago; the cluster of queue training has not echoed for 7 s, and ends itself"
    assert said(run) == ("NO_ECHO", True, Roughly(why))


def test_redis_away(ada: Person, settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere"
    run = make_run(ada)
    change(run, due_at=-31 * S)
    assert said(run) == (
        "NO_REDIS",
        True,
        Roughly("due 31 s ago; Redis is away, or refuses writes: a worker that is idle cannot be rung"),
    )


def test_a_job_at_work_says_how_far_it_is(ada: Person) -> None:
    run = make_run(ada)
    begin(run)
    assert said(run) == ("AT_WORK", False, Roughly("begun 0 s ago"))
    change(run, step=120, total_steps=800)
    log(run, "StepLogged", ago=3 * S, step=120)
    assert said(run) == ("AT_WORK", False, Roughly("step 120/800, StepLogged 3 s ago"))


def test_a_job_that_says_nothing_is_stuck(ada: Person) -> None:
    run = make_run(ada)
    begin(run)
    log(run, "StepLogged", ago=590 * S)
    assert said(run)[:2] == ("AT_WORK", False)
    log(run, "StepLogged", ago=601 * S)
    why = "has said nothing for 10 min 1 s; its worker renews the lease all the same"
    assert said(run) == ("SILENT", True, Roughly(why))


def test_a_job_that_was_asked_to_stop(ada: Person) -> None:
    run = make_run(ada)
    begin(run)
    change(run, cancel_requested_at=-12 * S)
    assert said(run) == ("STOPPING", False, Roughly("cancel asked 12 s ago; it may save for 30 s"))
    change(run, cancel_requested_at=-41 * S)
    assert said(run) == ("STOPPING", True, Roughly("cancel asked 41 s ago; its worker does not hear"))


def test_a_lease_that_ran_out(ada: Person) -> None:
    run = make_run(ada)
    begin(run)
    change(run, lease_until=-5 * S)
    why = "its lease ran out 5 s ago; the keeper, if there is one, requeues it soon"
    assert said(run) == ("LEASE_RAN_OUT", True, Roughly(why))


def test_an_ended_job_says_what_it_failed_of(ada: Person) -> None:
    failed = make_run(ada, status="FAILED", error_code="NUMERICS", error_message="NaN at step 3.\nLower the rate.")
    assert said(failed) == ("ENDED", False, "NUMERICS: NaN at step 3. Lower the rate.")
    assert said(make_run(ada, status="SUCCEEDED")) == ("ENDED", False, "")


def test_since_when_it_has_the_status_that_it_has(ada: Person) -> None:
    run = make_run(ada)
    change(run, created_at=-300 * S)

    def since() -> float:
        with operator():
            job = Diagnosis(TrainingRun).jobs().get(pk=run.pk)
            return round((job.now - job.since).total_seconds())

    assert since() == 300
    log(run, "StatusChanged", ago=60 * S, status="RUNNING")
    log(run, "StepLogged", ago=5 * S)
    assert since() == 60
    change(run, status="FAILED", finished_at=-2 * S)
    assert since() == 2


def test_10000_queued_jobs_are_examined_in_a_moment(ada: Person, cluster: Callable[..., None]) -> None:
    cluster()
    run = make_run(ada)
    fields = {field.attname: getattr(run, field.attname) for field in TrainingRun._meta.fields if field.name != "id"}
    with operator():
        TrainingRun.objects.bulk_create(TrainingRun(**{**fields, "name": str(number)}) for number in range(1, 10_000))
        TrainingRun.objects.filter(name__in=["1", "2"]).update(due_at=ServerClock() - 40 * S)
        began = time.monotonic()
        diagnosis = Diagnosis(TrainingRun)
        assert diagnosis.counts() == Counts(queued=10_000, running=0, stuck=2)
        assert {job.name for job in diagnosis.stuck()} == {"1", "2"}
        whys = [diagnosis.why(job) for job in diagnosis.jobs().filter(is_stuck=True)]
        assert [Roughly("due 40 s ago, a worker is free, and none has come")] * 2 == whys
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("left", ["nonsense", "{}", "[1]", '{"workers": 1}'])
def test_what_is_no_presence_is_no_cluster(ada: Person, cluster: Callable[..., None], left: str) -> None:
    cluster(workers=2, busy=1)
    with connect() as client:
        client.set("cluster:training:odd", left, ex=60)
        try:
            assert Workers.of("training").count == 2
        finally:
            client.delete("cluster:training:odd")
