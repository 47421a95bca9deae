"""Jobs in the admin: why each is where it is, and the operators' two verbs."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from common.claims import claim
from common.clock import ServerClock
from common.events import Event
from common.jobs import JobStatus
from common.tenancy import operator
from tests.cast import PASSWORD, Person
from tests.rows import make_adapter, make_run, make_version
from training.models import TrainingRun

RUNS = reverse("admin:training_trainingrun_changelist")
VERSIONS = reverse("admin:datasets_datasetversion_changelist")


@pytest.fixture
def operations(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("ops@example.com", PASSWORD))
    return client


@pytest.fixture
def staff(client: Client, db: None) -> Client:
    """Somebody who may look at runs, and change them if that were possible."""
    user = User.objects.create_user("staff@example.com", PASSWORD, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(content_type__app_label="training"))
    client.force_login(user)
    return client


def running(person: Person, **fields: Any) -> TrainingRun:
    run = make_run(person, **fields)
    lease = claim(TrainingRun, "worker-7:4711")
    assert lease and lease.job_id == run.pk
    return run


def status(run: TrainingRun) -> str:
    with operator():
        return TrainingRun.objects.get(pk=run.pk).status


def chosen(verb: str, *jobs: Any) -> dict[str, Any]:
    return {"action": verb, "_selected_action": [str(job.pk) for job in jobs]}


def act(client: Client, verb: str, *runs: TrainingRun) -> list[tuple[str, str]]:
    answer = client.post(RUNS, chosen(verb, *runs) | {"confirmed": "yes"})
    assert answer.status_code == 302
    return [(message.level_tag, message.message) for message in get_messages(answer.wsgi_request)]


def page(client: Client, **query: str) -> str:
    answer = client.get(RUNS, query)
    assert answer.status_code == 200
    return answer.content.decode()


def test_the_list_says_who_holds_a_job_and_why_it_is_where_it_is(operations: Client, alice: Person) -> None:
    run = running(alice, name="At work")
    with operator():
        TrainingRun.objects.filter(pk=run.pk).update(process={"host": "worker-7", "pid": 4712})
    make_run(alice, name="Waits")
    html = page(operations)
    for text in (
        "worker-7:4711",
        "child 4712",
        "lease for ",
        "1 (1/3)",
        "begun ",
        "no worker of queue training is heard",
    ):
        assert text in html


def test_the_lists_say_for_how_long_a_job_has_had_its_status(operations: Client, alice: Person) -> None:
    version = make_version(alice, status="QUEUED")
    run = make_run(alice, version)
    with operator():
        for job in (run, version):
            type(job).objects.filter(pk=job.pk).update(created_at=ServerClock() - timedelta(minutes=190))
    for html in (page(operations), operations.get(VERSIONS).content.decode()):
        ((day, shown),) = re.findall(r'<span title="since (\S+) \d\d:\d\d:\d\d UTC">([^<]+)</span>', html)
        assert (shown, date.fromisoformat(day)) == ("3 h", (timezone.now() - timedelta(minutes=190)).date())


def test_stuck_jobs_are_marked_and_found(operations: Client, alice: Person) -> None:
    stuck, _ = make_run(alice, name="Long due"), make_run(alice, name="Just due")
    with operator():
        TrainingRun.objects.filter(pk=stuck.pk).update(due_at=ServerClock() - timedelta(seconds=40))
    html = page(operations, stuck="yes")
    assert "Long due" in html and "Just due" not in html
    assert "Queued, stuck" in html
    assert "Just due" in page(operations)


def test_the_page_of_a_job_says_why_it_is_where_it_is_and_leads_to_its_events(
    operations: Client, alice: Person
) -> None:
    run, other = make_run(alice, name="Waits"), make_run(alice, name="Another")
    with operator():
        for job in (run, other):
            job.created()
    html = operations.get(reverse("admin:training_trainingrun_change", args=[run.pk])).content.decode()
    assert re.search("QUEUED, [^<]*no worker of queue training is heard", html)
    (link,) = re.findall(r'href="([^"]+)">1 events</a>', html)
    events = operations.get(link).context["cl"].result_list
    assert [(event.job_id, event.kind) for event in events] == [(run.pk, "StatusChanged")]


def test_events_are_read_as_text_and_lead_to_their_job(operations: Client, alice: Person) -> None:
    run = make_run(alice)
    with operator():
        run.created()
        lines = [
            Event("LogLine", {"level": "INFO", "text": "<b>6 steps"}),
            Event("StepLogged", {"step": 2, "loss": 0.1 + 0.2}),
        ]
        TrainingRun.objects.filter(pk=run.pk).advance(lines)
    html = operations.get(reverse("admin:training_trainingrunevent_changelist")).content.decode()
    for text in ("&lt;b&gt;6 steps", "loss 0.3, step 2", "reason -, status QUEUED"):
        assert re.search(rf">\s*{re.escape(text)}\s*<", html), text
    assert f'href="{reverse("admin:training_trainingrun_change", args=[run.pk])}"' in html


def test_the_card_of_an_adapter_keeps_its_lines(operations: Client, alice: Person) -> None:
    adapter = make_adapter(alice, make_run(alice, status="SUCCEEDED"), card="# Name\n\n| a | b |\n")
    html = operations.get(reverse("admin:training_adapter_change", args=[adapter.pk])).content.decode()
    assert '<pre style="white-space: pre-wrap"># Name\n\n| a | b |\n</pre>' in html


def test_the_list_of_runs_costs_as_many_queries_for_30_as_for_3(operations: Client, alice: Person) -> None:
    version = make_version(alice)
    counts = []
    for number in (3, 27):
        for _ in range(number):
            make_run(alice, version)
        with CaptureQueriesContext(connection) as queries:
            page(operations)
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_cancel_tells_for_each_what_became_of_it(operations: Client, alice: Person) -> None:
    ended, at_work = make_run(alice, name="Ended", status="FAILED"), running(alice, name="At work")
    waits = make_run(alice, name="Waits")
    told = act(operations, "cancel_jobs", ended, at_work, waits)
    assert set(told) == {
        ("success", f"{at_work.pk.hex[:8]} At work: asked to stop, which may take 30 seconds"),
        ("success", f"{waits.pk.hex[:8]} Waits: cancelled"),
        (
            "warning",
            f"{ended.pk.hex[:8]} Ended: It has ended as FAILED, and a terminal state is final: start a new one instead.",
        ),
    }
    assert [status(run) for run in (ended, at_work, waits)] == ["FAILED", "RUNNING", "CANCELLED"]
    logged = {(entry.object_id, entry.change_message) for entry in LogEntry.objects.all()}
    assert logged == {(str(at_work.pk), "asked to stop, which may take 30 seconds"), (str(waits.pk), "cancelled")}


def test_requeue_takes_a_run_from_its_worker(operations: Client, alice: Person) -> None:
    run, waits = running(alice, name="Hangs"), make_run(alice, name="Waits")
    assert set(act(operations, "requeue_jobs", run, waits)) == {
        ("warning", f"{waits.pk.hex[:8]} Waits: It is queued already."),
        ("success", f"{run.pk.hex[:8]} Hangs: queued again"),
    }
    with operator():
        run.refresh_from_db()
    assert (run.status, run.lease_owner, run.unproductive_attempts) == (JobStatus.QUEUED, "", 0)


def test_versions_have_the_same_verbs(operations: Client, alice: Person) -> None:
    version = make_version(alice, status="QUEUED")
    operations.post(VERSIONS, chosen("cancel_jobs", version) | {"confirmed": "yes"})
    with operator():
        version.refresh_from_db()
    assert version.status == JobStatus.CANCELLED


@pytest.mark.parametrize("verb", ["cancel_jobs", "requeue_jobs"])
def test_staff_who_are_no_superusers_look_and_change_nothing(staff: Client, alice: Person, verb: str) -> None:
    run = running(alice)
    assert verb not in page(staff)
    staff.post(RUNS, chosen(verb, run) | {"confirmed": "yes"})
    with operator():
        assert TrainingRun.objects.filter(pk=run.pk, status="RUNNING", cancel_requested_at=None).exists()


def test_with_redis_away_the_list_says_so(operations: Client, alice: Person, settings: Any) -> None:
    settings.REDIS_URL = "unix:///nowhere"
    make_run(alice)
    assert "Redis is away, or refuses writes: a worker that is idle cannot be rung" in page(operations)
