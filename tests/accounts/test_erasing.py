"""What is left of an organization once its grace period is over: nothing but its audit log; and of others, everything."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.db import connection
from django.utils import timezone

from accounts import audit, erasing
from accounts.erasing import erase_what_is_over
from accounts.models import Invitation, Organization
from accounts.principals import principal_of
from common import blobs
from common.claims import claim
from common.events import Event
from common.jobs import JobStatus
from common.leftovers import attempt_folder, remove_leftovers
from common.tenancy import operator
from datasets.models import Upload
from datasets.schedules import remove_bytes_that_no_upload_waits_for
from tests.accounts.closed import delete, delete_account, fresh, let_the_grace_period_pass, log_of
from tests.accounts.locks import in_another_thread
from tests.cast import Person, make_person
from tests.platform_site.history import make_history
from tests.rows import make_run, make_upload
from training.models import Adapter, TrainingRun, TrainingRunEvent

pytestmark = pytest.mark.django_db(transaction=True)

AUDIT = {"accounts_auditentry", "accounts_audithead"}


def make_everything(person: Person) -> Adapter:
    """A row in each table that has an organization, and files of each kind."""
    adapter = make_history(person)
    with operator():
        TrainingRun.objects.filter(pk=adapter.training_run_id).advance([Event("LogLine", {"text": "x"})] * 25)
    for kind in ("versions", "adapters"):
        for name in ("manifest.json", "weights.safetensors"):
            default_storage.save(blobs.key(person.organization.pk, kind, uuid4(), "0001", name), ContentFile(b"x"))
    return adapter


def tables() -> list[str]:
    """All of the database's that have an organization, but the audit log's."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT table_name FROM information_schema.columns
               WHERE table_schema = 'public' AND column_name = 'organization_id' ORDER BY table_name"""
        )
        return [name for (name,) in cursor.fetchall() if name not in AUDIT]


def rows_of(organization_id: UUID) -> dict[str, int]:
    counts = {}
    with operator(), connection.cursor() as cursor:
        for table, column in [*((table, "organization_id") for table in tables()), ("accounts_organization", "id")]:
            cursor.execute(f"SELECT count(*) FROM {table} WHERE {column} = %s", [organization_id])
            counts[table] = cursor.fetchone()[0]
    return counts


def files_of(organization_id: UUID) -> list[Path]:
    return sorted((Path(settings.STORAGE_ROOT) / "t" / str(organization_id)).rglob("*"))


def close(person: Person) -> None:
    delete(person)
    let_the_grace_period_pass()


def nothing_is_left_of(person: Person) -> bool:
    folder = Path(settings.STORAGE_ROOT) / "t" / str(person.organization.pk)
    return not any(rows_of(person.organization.pk).values()) and not folder.exists()


def test_no_row_and_no_file_is_left_and_anothers_are_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "EVENTS_AT_ONCE", 10)
    alice, charlie = make_person("Alice"), make_person("Charlie")
    make_everything(alice)
    make_everything(charlie)
    before = rows_of(charlie.organization.pk), files_of(charlie.organization.pk)
    assert 0 not in rows_of(alice.organization.pk).values(), "a table has no row that could be left"
    assert len(before[1]) > 10
    close(alice)
    erase_what_is_over()
    assert nothing_is_left_of(alice)
    assert (rows_of(charlie.organization.pk), files_of(charlie.organization.pk)) == before
    assert principal_of(alice.token).roles == {}


def test_its_audit_log_stays_and_says_when(alice: Person) -> None:
    close(alice)
    erase_what_is_over()
    target = f"organization:{alice.organization.pk}"
    assert log_of(alice.organization.pk) == [
        ("organization.close", f"user:{alice.user.pk}", target),
        ("organization.delete", "keeper", target),
    ]
    with operator():
        assert list(audit.verify(alice.organization.pk)) == []


def test_within_the_grace_period_nothing_is_deleted(alice: Person) -> None:
    make_everything(alice)
    delete(alice)
    before = rows_of(alice.organization.pk), files_of(alice.organization.pk)
    erase_what_is_over()
    assert (rows_of(alice.organization.pk), files_of(alice.organization.pk)) == before


def test_what_runs_is_stopped_and_waited_for(alice: Person) -> None:
    run = make_run(alice)
    lease = claim(TrainingRun, "worker")
    assert lease and lease.job_id == run.pk
    close(alice)
    before = rows_of(alice.organization.pk)
    erase_what_is_over()
    with operator():
        run.refresh_from_db()
    assert (run.status, run.cancel_requested_at is not None) == ("RUNNING", True)
    assert rows_of(alice.organization.pk) == before
    with operator():
        assert TrainingRun.objects.held(lease).move(JobStatus.CANCELLED)
    erase_what_is_over()
    assert nothing_is_left_of(alice)


STEPS: dict[str, Any] = {
    "between two batches of events": (erasing, "_delete_in_batches", True),
    "before the rows": (erasing, "_delete_rows", False),
    "after the rows": (erasing, "_delete_rows", True),
    "among the files": (blobs, "delete_folder", True),
    "after the files": (blobs, "delete_tree", True),
    "before the organization": (erasing, "_delete_organization", False),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_turn_that_was_cut_short_is_gone_on_with(alice: Person, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What kill -9 leaves is what was committed before: here its place is taken by an exception that nobody catches."""
    make_everything(alice)
    close(alice)
    module, name, does = STEPS[step]
    real = getattr(module, name)

    def cut(*given: Any) -> None:
        if does:
            real(*given)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, name, cut)
        with pytest.raises(KeyboardInterrupt):
            erase_what_is_over()
    assert fresh(alice.organization).closes_at is not None, "by its row it is found"
    erase_what_is_over()
    assert nothing_is_left_of(alice)
    assert [action for action, _, _ in log_of(alice.organization.pk)][-1] == "organization.delete"


def test_one_that_cannot_be_deleted_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    delete(alice)
    close(charlie)
    real: Callable[[UUID], None] = erasing._delete_rows

    def break_for_one(organization_id: UUID) -> None:
        if organization_id == first:
            raise OSError
        real(organization_id)

    with operator():
        first = Organization.objects.values_list("pk", flat=True)[0]
    monkeypatch.setattr(erasing, "_delete_rows", break_for_one)
    erase_what_is_over()
    with operator():
        assert list(Organization.objects.values_list("pk", flat=True)) == [first]


def test_what_a_request_puts_in_meanwhile_is_found_by_the_next_turn(alice: Person) -> None:
    """It began before the organization closed, and waits for the row of the organization that it refers to."""
    close(alice)

    def put_in() -> None:
        with operator():
            Upload.objects.create(organization=alice.organization, file_name="f", size_bytes=0)

    with in_another_thread() as begin:
        with operator():
            Organization.objects.select_for_update().get(pk=alice.organization.pk)
            late = begin(put_in)
        late.result(timeout=10)
    with pytest.raises(Exception, match="still referenced"):
        erasing._delete_organization(alice.organization.pk)
    assert fresh(alice.organization)
    erase_what_is_over()
    assert nothing_is_left_of(alice)


def test_a_host_keeps_no_folder_and_no_bytes_of_it(alice: Person, charlie: Person) -> None:
    kept, gone = [], []
    for person, paths in ((alice, gone), (charlie, kept)):
        attempt = attempt_folder(make_run(person, status="SUCCEEDED").pk, 1)
        attempt.mkdir(parents=True)
        arriving = Path(settings.INCOMING_ROOT) / f"{make_upload(person).pk}.{uuid4().hex}"
        arriving.parent.mkdir(exist_ok=True)
        arriving.write_bytes(b"x")
        paths += [attempt.parent, arriving]
    then = time.time() - 120
    for folder in (gone[0], kept[0]):
        os.utime(folder, (then, then))
    close(alice)
    erase_what_is_over()
    remove_leftovers([TrainingRun])
    remove_bytes_that_no_upload_waits_for()
    assert ([path.exists() for path in gone], [path.exists() for path in kept]) == ([False] * 2, [True] * 2)


def test_the_admins_history_names_it_no_more(alice: Person, charlie: Person) -> None:
    with operator():
        for person in (alice, charlie):
            LogEntry.objects.log_actions(charlie.user.pk, [person.organization], CHANGE, "Renamed", single_object=True)
    close(alice)
    erase_what_is_over()
    with operator():
        assert list(LogEntry.objects.values_list("object_repr", flat=True)) == ["Charlie's"]


def test_the_admins_history_of_others_names_nobody_who_is_gone(alice: Person, charlie: Person) -> None:
    told = [{"changed": {"name": "member", "object": "alice@example.com in Charlie's", "fields": ["Role"]}}]
    with operator():
        LogEntry.objects.log_actions(charlie.user.pk, [charlie.organization], CHANGE, told, single_object=True)
        LogEntry.objects.log_actions(charlie.user.pk, [charlie.organization], CHANGE, "Renamed", single_object=True)
        Invitation.objects.create(
            organization=charlie.organization, email="alice@example.com", token_sha256="x", expires_at=timezone.now()
        )
    delete_account(alice)
    let_the_grace_period_pass()
    erase_what_is_over()
    with operator():
        assert list(LogEntry.objects.values_list("change_message", flat=True)) == ["Renamed"]
        assert not Invitation.objects.exists()


def test_an_event_more_than_a_batch_is_deleted_too(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "EVENTS_AT_ONCE", 10)
    adapter = make_everything(alice)
    erasing._delete_in_batches(TrainingRunEvent, alice.organization.pk)
    with operator():
        assert not TrainingRunEvent.objects.filter(job_id=adapter.training_run_id).exists()
