"""Logging in: one answer to every wrong combination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from accounts import audit
from accounts.actions.identity import log_in
from accounts.credentials import WrongCredentials
from accounts.models import AuditEntry, RefreshToken, User
from common.tenancy import operator
from tests.accounts.locks import in_another_thread
from tests.cast import PASSWORD, Person, make_person

LOGIN = """
mutation ($input: LoginInput!) { login(input: $input) {
  __typename
  ... on Session { accessToken expiresAt user { email memberships { role organization { name } } } }
  ... on OperationInfo { messages { kind code field message } }
} }
"""
WRONG = {
    "__typename": "OperationInfo",
    "messages": [
        {
            "kind": "ERROR",
            "code": "WRONG_CREDENTIALS",
            "field": None,
            "message": "The address or the password is not right.",
        }
    ],
}

Ask = Callable[..., dict[str, Any]]


def sessions() -> int:
    with operator():
        return RefreshToken.objects.count()


@pytest.mark.parametrize("typed", ["alice@example.com", " ALICE@example.com "])
def test_the_right_password_gives_a_session(anonymous: Ask, alice: Person, typed: str) -> None:
    session = anonymous(LOGIN, input={"email": typed, "password": PASSWORD})["data"]["login"]
    alice.token = session["accessToken"]
    assert session["user"] == {
        "email": "alice@example.com",
        "memberships": [{"role": "OWNER", "organization": {"name": "Alice's"}}],
    }
    assert alice.data("{ me { email } }") == {"me": {"email": "alice@example.com"}}


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("alice@example.com", "another password"),
        ("alice@example.com", ""),
        ("alice@example.com", PASSWORD + "\x00"),
        ("alice@example.com", PASSWORD + "\ud800"),
        ("nobody@example.com", PASSWORD),
        ("", ""),
        ("alice@example.com\x00", PASSWORD),
        ("\udfff", PASSWORD),
        ("a" * 10_000, PASSWORD),
        ("' OR 1=1 --", PASSWORD),
    ],
)
def test_whatever_is_wrong_the_answer_is_the_same(anonymous: Ask, alice: Person, email: str, password: str) -> None:
    before = sessions()
    answer = anonymous(LOGIN, input={"email": email, "password": password})
    assert answer == {"data": {"login": WRONG}}
    assert sessions() == before


def test_an_account_that_was_closed_answers_like_one_that_never_was(anonymous: Ask, alice: Person) -> None:
    alice.user.is_active = False
    alice.user.save()
    answer = anonymous(LOGIN, input={"email": "alice@example.com", "password": PASSWORD})
    assert answer == {"data": {"login": WRONG}}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [{"password": "!"}, {"is_active": False}])
def test_a_login_does_not_outlast_a_change_that_comes_while_the_password_is_compared(change: dict[str, Any]) -> None:
    """It would be a session of the old password, which the change has not ended."""
    user = make_person("Alice").user
    before = sessions()
    with in_another_thread() as begin:
        with operator():
            User.objects.filter(pk=user.pk).update(**change)
            logging_in = begin(lambda: log_in(email="alice@example.com", password=PASSWORD))
        with pytest.raises(WrongCredentials):
            logging_in.result(timeout=10)
    assert sessions() == before


@pytest.mark.django_db
def test_who_came_in_and_who_was_refused_is_in_the_audit_log(alice: Person) -> None:
    client = Client(REMOTE_ADDR="192.0.2.9")
    document = "mutation ($input: LoginInput!) { login(input: $input) { __typename } }"
    for email, password in (
        ("alice@example.com", PASSWORD),
        ("alice@example.com", "not her password"),
        ("nobody@example.com", PASSWORD),
    ):
        variables = {"input": {"email": email, "password": password}}
        client.post("/graphql", {"query": document, "variables": variables}, content_type="application/json")
    with operator():
        log = AuditEntry.objects.filter(organization_id=audit.PLATFORM).order_by("sequence")
        seen = list(log.values_list("action", "actor", "target", "address"))
    hers = f"user:{alice.user.pk}"
    assert seen == [
        ("session.begin", hers, "", "192.0.2.9"),
        ("session.refuse", "nobody", hers, "192.0.2.9"),
        ("session.refuse", "nobody", "nobody", "192.0.2.9"),
    ]
