"""Logging out ends one session, and everything that belongs to it, at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from accounts import tokens
from accounts.models import RefreshToken
from accounts.principals import principal_of
from accounts.tokens import InvalidToken
from common.tenancy import operator
from tests.cast import Person, session_of

LOGOUT = """
mutation ($token: String!) { logout(input: {refreshToken: $token}) {
  __typename ... on Done { ok } ... on OperationInfo { messages { code } }
} }
"""
DONE = {"data": {"logout": {"__typename": "Done", "ok": True}}}

Ask = Callable[..., dict[str, Any]]


def is_live(session: tokens.IssuedSession) -> bool:
    try:
        return principal_of(session.access_token).user_id is not None
    except InvalidToken:
        return False


def can_go_on(session: tokens.IssuedSession) -> bool:
    try:
        return bool(tokens.rotate(session.refresh_token))
    except InvalidToken:
        return False


def test_it_ends_the_session_and_no_other(anonymous: Ask, alice: Person) -> None:
    here, elsewhere = session_of(alice.user), session_of(alice.user)
    assert is_live(here)
    assert anonymous(LOGOUT, token=here.refresh_token) == DONE
    assert not is_live(here)
    assert not can_go_on(here)
    assert is_live(elsewhere)
    assert can_go_on(elsewhere)


def test_any_token_of_the_session_ends_it(anonymous: Ask, alice: Person) -> None:
    first = session_of(alice.user)
    second = tokens.rotate(first.refresh_token)
    assert anonymous(LOGOUT, token=first.refresh_token) == DONE
    assert not is_live(first)
    assert not is_live(second)
    assert not can_go_on(second)


def test_the_answer_is_the_same_a_second_time(anonymous: Ask, alice: Person) -> None:
    session = session_of(alice.user)
    assert [anonymous(LOGOUT, token=session.refresh_token) for _ in range(2)] == [DONE, DONE]


@pytest.mark.parametrize("token", ["", "x", "\x00", "\ud800", "→", "x" * 100_000])
def test_the_answer_is_the_same_for_an_unknown_token_which_ends_nothing(
    anonymous: Ask, alice: Person, token: str
) -> None:
    assert anonymous(LOGOUT, token=token) == DONE
    with operator():
        assert RefreshToken.objects.exclude(revoked_at=None).count() == 0
