"""Buttons of the admin that end something ask first, and do nothing until somebody says yes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from accounts.models import AuditEntry, User
from common import confirming
from common.tenancy import operator
from tests.cast import PASSWORD, Person
from tests.rows import make_run

BUTTONS = [
    ("accounts/user", "lock", "Lock these accounts?"),
    ("accounts/user", "sign_out", "Sign these people out everywhere?"),
    ("accounts/user", "close", "Close these accounts?"),
    ("accounts/organization", "close", "Close these organizations?"),
    ("training/trainingrun", "cancel_jobs", "Cancel these jobs?"),
    ("training/trainingrun", "requeue_jobs", "Take these jobs from their workers?"),
]


@pytest.fixture
def admin(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("root@example.com", PASSWORD))
    return client


def row_of(page: str, person: Person) -> Any:
    return {
        "accounts/user": lambda: person.user,
        "accounts/organization": lambda: person.organization,
        "training/trainingrun": lambda: make_run(person, name="At night"),
    }[page]()


def state(row: Any) -> dict[str, Any]:
    with operator():
        row.refresh_from_db()
    return {field.name: getattr(row, field.attname) for field in row._meta.fields}


@pytest.mark.parametrize(("page", "button", "question"), BUTTONS)
def test_a_button_that_ends_something_shows_what_and_does_nothing(
    admin: Client, alice: Person, page: str, button: str, question: str
) -> None:
    row = row_of(page, alice)
    before = state(row)
    answer = admin.post(f"/admin/{page}/", {"action": button, "_selected_action": [str(row.pk)]})
    html = answer.content.decode()
    assert answer.status_code == 200
    assert question in html and str(row.pk) in html
    assert state(row) == before
    with operator():
        assert (LogEntry.objects.count(), AuditEntry.objects.count()) == (0, 0)


def test_its_form_says_yes_for_the_rows_that_it_shows(admin: Client, alice: Person, bob: Person) -> None:
    chosen = [str(person.user.pk) for person in (alice, bob)]
    page = admin.post("/admin/accounts/user/", {"action": "sign_out", "_selected_action": chosen})
    form = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page.content.decode())
    said = [*(("_selected_action", pk) for pk in chosen), ("action", "sign_out"), ("confirmed", "yes")]
    assert sorted(field for field in form if field[0] != "csrfmiddlewaretoken") == sorted(said)
    answer = admin.post("/admin/accounts/user/", {name: [v for n, v in form if n == name] for name, _ in form})
    assert answer.status_code == 302
    with operator():
        log = AuditEntry.objects.filter(action="user.sign_out").values_list("target", flat=True)
        assert sorted(log) == sorted(f"user:{pk}" for pk in chosen)


def test_everybody_at_once_is_refused(
    admin: Client, alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirming, "ROWS_AT_MOST", 2)
    everybody = {"action": "lock", "select_across": "1", "_selected_action": [str(alice.user.pk)]}
    answer = admin.post("/admin/accounts/user/", everybody, follow=True)
    assert [str(message) for message in answer.context["messages"]] == ["Choose 2 at most at once."]
    assert User.objects.filter(is_active=True).count() == 3
