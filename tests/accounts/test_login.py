"""Logging in: one answer to every wrong combination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from accounts.models import RefreshToken
from tests.cast import PASSWORD, Person

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
    before = RefreshToken.objects.count()
    answer = anonymous(LOGIN, input={"email": email, "password": password})
    assert answer == {"data": {"login": WRONG}}
    assert RefreshToken.objects.count() == before


def test_an_account_that_was_closed_answers_like_one_that_never_was(anonymous: Ask, alice: Person) -> None:
    alice.user.is_active = False
    alice.user.save()
    answer = anonymous(LOGIN, input={"email": "alice@example.com", "password": PASSWORD})
    assert answer == {"data": {"login": WRONG}}
