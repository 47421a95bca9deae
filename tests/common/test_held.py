"""What a worker writes about the job it holds: once, whatever happens to an answer, and with a cancel in mind."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models import F

from common import outages
from common.claims import claim
from common.clock import ServerClock
from common.held import HeldJob, LeaseLost
from common.jobs import JobStatus, request_cancel
from common.tenancy import operator
from datasets.models import DatasetVersion
from tests.accounts.locks import in_another_thread
from tests.cast import make_person
from tests.common.test_claims import queue_versions

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def version() -> DatasetVersion:
    return queue_versions(make_person("Alice"), 1)[0]


@pytest.fixture
def held(version: DatasetVersion) -> HeldJob:
    lease = claim(DatasetVersion, "worker")
    assert lease
    return HeldJob(lease, lambda: False)


def now(version: DatasetVersion) -> DatasetVersion:
    with operator():
        return DatasetVersion.objects.get(pk=version.pk)


def texts(version: DatasetVersion) -> list[str]:
    with operator():
        return list(version.event_log.filter(kind="LogLine").order_by("sequence").values_list("data__text", flat=True))


def write_events(file: Path, *lines: str) -> None:
    with file.open("a") as log:
        for line in lines:
            log.write(json.dumps({"kind": "LogLine", "at": "2026-01-01T00:00:00Z", "text": line}) + "\n")


def forward(held: HeldJob, file: Path) -> None:
    held.forward_events(file)


def test_events_whose_commit_was_made_but_not_answered_are_not_written_twice(
    version: DatasetVersion, held: HeldJob, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    write_events(file, "one", "two")
    unanswered = HeldJob(held.lease, lambda: False)
    forward(unanswered, file)  # its commit is made, and this process never learns of it
    forward(held, file)
    write_events(file, "three")
    forward(held, file)
    assert texts(version) == ["one", "two", "three"]


def test_events_that_came_after_a_commit_without_an_answer_are_written_once(
    version: DatasetVersion, held: HeldJob, tmp_path: Path
) -> None:
    file = tmp_path / "events.jsonl"
    write_events(file, "one", "two")
    forward(HeldJob(held.lease, lambda: False), file)  # committed, not answered
    write_events(file, "three")
    forward(held, file)
    forward(held, file)
    assert texts(version) == ["one", "two", "three"]


def test_events_are_as_old_as_the_child_says_on_the_databases_clock(
    version: DatasetVersion, held: HeldJob, tmp_path: Path
) -> None:
    """A host may be minutes off. What its child tells of the future, it has just told."""
    file, written = tmp_path / "events.jsonl", datetime.now(UTC)
    with file.open("a") as log:
        for ago_s in (600, -600):
            at = (written - timedelta(seconds=ago_s)).isoformat()
            log.write(json.dumps({"kind": "LogLine", "at": at, "text": str(ago_s)}) + "\n")
    forward(held, file)
    with operator():
        rows = version.event_log.filter(kind="LogLine").annotate(ago=ServerClock() - F("at"))
        ago = {row.data["text"]: row.ago.total_seconds() for row in rows}
    assert 600 <= ago["600"] < 630 and 0 <= ago["-600"] < 30


def test_half_a_line_waits_for_its_end(version: DatasetVersion, held: HeldJob, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    write_events(file, "one", "two")
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    forward(held, file)
    assert texts(version) == ["one"]
    file.write_bytes(whole)
    forward(held, file)
    assert texts(version) == ["one", "two"]


def test_a_new_attempt_reads_its_own_events_from_their_start(
    version: DatasetVersion, held: HeldJob, tmp_path: Path
) -> None:
    write_events(tmp_path / "first.jsonl", "one")
    forward(held, tmp_path / "first.jsonl")
    held.give_back("Asked to.")
    lease = claim(DatasetVersion, "another")
    assert lease
    write_events(tmp_path / "second.jsonl", "again")
    forward(HeldJob(lease, lambda: False), tmp_path / "second.jsonl")
    write_events(tmp_path / "first.jsonl", "late")
    with pytest.raises(LeaseLost):
        forward(held, tmp_path / "first.jsonl")
    assert texts(version) == ["one", "again"]


def test_a_cancel_that_comes_while_the_result_is_saved_wins(version: DatasetVersion, held: HeldJob) -> None:
    with operator():
        request_cancel(now_in_scope(version))
    held.succeed(lambda job, result: pytest.fail("it has not succeeded"), {})
    assert (now(version).status, now(version).rows_kept) == (JobStatus.CANCELLED, None)


def test_a_cancel_that_comes_before_a_failure_is_told_wins(version: DatasetVersion, held: HeldJob) -> None:
    with operator():
        request_cancel(now_in_scope(version))
    held.fail("NO_USABLE_ROWS", "None.")
    assert (now(version).status, now(version).error_code) == (JobStatus.CANCELLED, None)


@pytest.mark.parametrize(
    "end", [lambda held: held.fail("NO_USABLE_ROWS", "None."), lambda held: held.succeed(lambda *_: None, {})]
)
def test_a_cancel_that_is_being_acknowledged_while_the_end_is_told_wins(
    version: DatasetVersion, held: HeldJob, end: Callable[[HeldJob], None]
) -> None:
    """Found by seed 91: the end was told in two statements, between which the cancel was committed."""
    with in_another_thread() as begin:
        with operator():
            assert request_cancel(now_in_scope(version)).status == JobStatus.RUNNING
            waits = begin(lambda: end(held))
        waits.result()
    assert now(version).status == JobStatus.CANCELLED


def test_a_cancel_that_comes_before_the_job_is_given_back_wins(version: DatasetVersion, held: HeldJob) -> None:
    with operator():
        request_cancel(now_in_scope(version))
    held.give_back("Asked to.")
    assert now(version).status == JobStatus.CANCELLED


def test_an_end_whose_commit_was_made_but_not_answered_is_an_end(
    version: DatasetVersion, held: HeldJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outages, "RETRY_EVERY_S", 0.0)
    results = []

    def succeeded(job: Any, result: dict[str, Any]) -> None:
        results.append(DatasetVersion.objects.filter(pk=job.pk).update(rows_kept=result["rows"]))

    commit = connection.commit

    def commit_and_lose_the_answer() -> None:
        monkeypatch.undo()
        commit()
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(connection, "commit", commit_and_lose_the_answer)
    held.succeed(succeeded, {"rows": 7})
    assert (now(version).status, now(version).rows_kept, len(results)) == (JobStatus.SUCCEEDED, 7, 1)


def test_a_job_that_another_attempt_has_is_not_ended(version: DatasetVersion, held: HeldJob) -> None:
    with operator():
        DatasetVersion.objects.filter(pk=version.pk).update(fence=held.lease.fence + 1)
    for end in (
        held.cancel,
        lambda: held.give_back("Asked to."),
        lambda: held.fail("X", "x"),
        lambda: held.succeed(print, {}),
    ):
        with pytest.raises(LeaseLost):
            end()
    assert now(version).status == JobStatus.RUNNING


def now_in_scope(version: DatasetVersion) -> DatasetVersion:
    return DatasetVersion.objects.get(pk=version.pk)
