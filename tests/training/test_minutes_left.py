"""What unfinished runs use up of a month's training minutes, and when that has to be looked up again."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.usage import settle
from accounts.usage_kinds import UsageKind
from common.jobs import HEARTBEAT_S
from common.tenancy import operator, tenant
from tests.accounts.ledger import allow
from tests.cast import Person, make_person
from tests.rows import make_run, stored_version
from training import budget
from training.budget import MinutesLeft
from training.models import TrainingRunEvent

pytestmark = pytest.mark.django_db(transaction=True)


def had(person: Person, *history: tuple[str, int], **fields: Any) -> None:
    """A run with these statuses, each of which it has had since so many seconds."""
    now = timezone.now()
    begun = [at for status, at in history if status == "RUNNING"]
    started_at = now - timedelta(seconds=begun[0]) if begun else None
    run = make_run(person, stored_version(person), status=history[-1][0], started_at=started_at, **fields)
    with operator():
        for sequence, (status, seconds) in enumerate(history, start=1):
            TrainingRunEvent.objects.create(
                organization=person.organization,
                job=run,
                sequence=sequence,
                at=now - timedelta(seconds=seconds),
                kind="StatusChanged",
                data={"status": status},
            )


def settled(person: Person, seconds: int) -> None:
    with tenant(person.principal):
        settle(person.organization.pk, UsageKind.TRAINING_SECONDS, seconds, key="before")


@pytest.mark.parametrize(("seconds", "is_refused"), [(500, False), (520, True)])
def test_all_that_unfinished_runs_were_at_work_counts_and_nothing_else(
    bob: Person, seconds: int, is_refused: bool
) -> None:
    """90 seconds of 600: with 500 that ended runs have used ten are left, and with 520 none."""
    allow(bob, training_minutes_per_month=10)
    settled(bob, seconds)
    had(bob, ("QUEUED", 99), ("RUNNING", 20))
    had(bob, ("QUEUED", 999), ("RUNNING", 400), ("QUEUED", 380), ("RUNNING", 30))  # preempted once: 20, and 30
    had(bob, ("QUEUED", 999), ("RUNNING", 300), ("QUEUED", 280))  # waits for its next attempt
    had(bob, ("QUEUED", 999))
    had(bob, ("QUEUED", 999), ("RUNNING", 400), ("SUCCEEDED", 300))  # is in the ledger
    charlie = make_person("Charlie")
    had(charlie, ("QUEUED", 99), ("RUNNING", 50))
    refusal = MinutesLeft(bob.organization.pk)()
    assert (refusal is not None) is is_refused
    assert refusal is None or refusal.code == "BUDGET_SPENT"


@pytest.mark.parametrize(
    ("left_s", "running", "again_after_s"), [(8, 1, 8), (8, 2, 4), (9, 3, 3), (8, 0, 8), (600, 1, HEARTBEAT_S)]
)
def test_it_is_looked_up_again_once_all_at_work_could_have_used_it_up(
    bob: Person, left_s: int, running: int, again_after_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with each heartbeat at the latest: further runs may have begun."""
    allow(bob, training_minutes_per_month=20)
    settled(bob, 1_200 - left_s)
    for _ in range(running):
        had(bob, ("QUEUED", 0), ("RUNNING", 0))
    clock = SimpleNamespace(now=1_000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(budget, "time", clock)
    asked = MinutesLeft(bob.organization.pk)
    looked_up = []
    for now in (1_000, 1_000 + again_after_s - 1.5, 1_000 + again_after_s):  # the rows are some moments old
        clock.now = now
        with CaptureQueriesContext(connection) as queries:
            assert asked() is None
        looked_up.append(len(queries) > 0)
    assert looked_up == [True, False, True]
