"""Operators search by what they have in hand: an id of the API, of the audit log, or of the database, an e-mail, an error code."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts import audit
from accounts.models import AuditEntry, User
from common.searching import key_in
from common.tenancy import operator
from tests.cast import PASSWORD, Person, make_person
from tests.platform_site.history import make_history
from tests.rows import global_id, make_run

AUDIT = reverse("admin:accounts_auditentry_changelist")
KEY = "7a0af1f5-9d2d-491a-b0a3-f27948b0d05a"


@pytest.fixture
def operations(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("ops@example.com", PASSWORD))
    return client


def found(client: Client, page: str, sought: str) -> list[Any]:
    answer = client.get(f"/admin/{page}/", {"q": sought})
    assert answer.status_code == 200
    return [row.pk for row in answer.context["cl"].result_list]


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("VHJhaW5pbmdSdW46N2EwYWYxZjUtOWQyZC00OTFhLWIwYTMtZjI3OTQ4YjBkMDVh", KEY),
        (f"run:{KEY}", KEY),
        (KEY, None),
        ("alice", None),
        ("alic", None),  # base64, of no text
        (f"a/run:{KEY}", None),
    ],
)
def test_a_key_is_found_in_what_stands_for_it(word: str, key: str | None) -> None:
    assert key_in(word) == key


@pytest.mark.parametrize("shape", ["{pk}", "user:{pk}", "relay"])
def test_rows_are_found_by_their_ids_however_written(
    operations: Client, alice: Person, bob: Person, shape: str
) -> None:
    run, _ = make_run(alice), make_run(alice)
    pages = {"accounts/user": bob.user, "accounts/organization": alice.organization, "training/trainingrun": run}
    for page, row in pages.items():
        sought = global_id(row) if shape == "relay" else shape.format(pk=row.pk)
        assert found(operations, page, sought) == [row.pk], page


def test_what_an_organization_has_is_found_by_its_id(operations: Client) -> None:
    people = [make_person(name) for name in ("Alice", "Charlie")]
    for person in people:
        make_history(person)
    for page in (
        *("accounts/membership", "accounts/invitation", "accounts/apikey", "accounts/quota", "accounts/usageentry"),
        *("datasets/upload", "datasets/dataset", "datasets/datasetversion", "training/trainingrun", "training/adapter"),
    ):
        of_each = [found(operations, page, str(person.organization.pk)) for person in people]
        assert all(of_each) and not set(of_each[0]) & set(of_each[1]), page


def test_jobs_are_found_by_their_error_code(operations: Client, alice: Person) -> None:
    poisoned, _ = make_run(alice, status="FAILED", error_code="POISON"), make_run(alice)
    assert found(operations, "training/trainingrun", "POISON") == [poisoned.pk]


def test_the_audit_log_is_searched_by_e_mail_and_by_any_id(operations: Client, alice: Person, bob: Person) -> None:
    with operator():
        audit.record(alice.organization.pk, actor=f"user:{bob.user.pk}", action="run.cancel", target=f"run:{KEY}")
        audit.record(audit.PLATFORM, actor="nobody", action="session.refuse", target=f"user:{alice.user.pk}")
        by_bob, of_alice = AuditEntry.objects.order_by("at").values_list("pk", flat=True)
    page = "accounts/auditentry"
    for sought in ("Bob@example.com", str(bob.user.pk), f"user:{bob.user.pk}", KEY, str(alice.organization.pk)):
        assert found(operations, page, sought) == [by_bob], sought
    assert found(operations, page, "alice@example.com") == [of_alice]
    assert found(operations, page, "nobody@example.com") == []


def test_the_audit_log_reads_ids_with_the_names_of_today(operations: Client, alice: Person) -> None:
    its = f"organization:{alice.organization.pk}"
    with operator():
        audit.record(alice.organization.pk, actor=f"user:{alice.user.pk}", action="organization.close", target=its)
        audit.record(audit.PLATFORM, actor=f"user:{KEY}", action="session.begin")
    html = operations.get(AUDIT).content.decode()
    for name, text in [
        ("alice@example.com", f"user:{alice.user.pk}"),
        ("Alice&#x27;s", its),
        ("Alice&#x27;s", str(alice.organization.pk)),
        ("the platform", str(audit.PLATFORM)),
    ]:
        assert f'<div>{name}</div><div class="text-xs">{text}</div>' in html
    assert f"user:{KEY}" in html  # of whom nothing else is left


def test_the_audit_log_costs_as_many_queries_for_30_as_for_3(operations: Client, alice: Person, bob: Person) -> None:
    counts = []
    for number in (3, 27):
        with operator():
            for _ in range(number):
                for person in (alice, bob):
                    audit.record(person.organization.pk, actor=f"user:{person.user.pk}", action="session.begin")
        with CaptureQueriesContext(connection) as queries:
            operations.get(AUDIT)
        counts.append(len(queries))
    assert counts[0] == counts[1]
