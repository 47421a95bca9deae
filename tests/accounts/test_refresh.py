"""Refresh tokens: rotated at each use, and a second use ends the whole family."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import ProgrammingError, connection
from django.db.models import F
from django.utils import timezone

from accounts.models import RefreshToken, User
from accounts.principals import principal_of
from accounts.tokens import InvalidToken, _exchanged, read, revoke, revoke_all
from common.tenancy import operator, tenant
from tests.accounts.locks import in_another_thread
from tests.cast import Person, make_person, session_of
from tests.processes import start_python

REFRESH = """
mutation ($token: String!) { refreshToken(input: {refreshToken: $token}) {
  __typename
  ... on Session { accessToken refreshToken user { email memberships { role } } }
  ... on OperationInfo { messages { kind code } }
} }
"""
INVALID = {"__typename": "OperationInfo", "messages": [{"kind": "ERROR", "code": "INVALID_TOKEN"}]}

Ask = Callable[..., dict[str, Any]]


def refresh(anonymous: Ask, token: str) -> dict[str, Any]:
    return anonymous(REFRESH, token=token)["data"]["refreshToken"]


def count() -> int:
    with operator():
        return RefreshToken.objects.count()


def age_uses(seconds: float) -> None:
    """Put all uses into the past: the clock is the far edge."""
    used_at = timezone.now() - timedelta(seconds=seconds)
    with operator():
        RefreshToken.objects.exclude(used_at=None).update(used_at=used_at)


def test_a_refresh_gives_a_new_pair_of_the_same_family(anonymous: Ask, alice: Person) -> None:
    first = session_of(alice.user).refresh_token
    second = refresh(anonymous, first)
    third = refresh(anonymous, second["refreshToken"])
    assert second["user"] == third["user"] == {"email": "alice@example.com", "memberships": [{"role": "OWNER"}]}
    assert len({first, second["refreshToken"], third["refreshToken"]}) == 3
    alice.token = third["accessToken"]
    assert alice.data("{ me { email } }") == {"me": {"email": "alice@example.com"}}


def test_tokens_are_stored_as_hashes_only(alice: Person) -> None:
    token = session_of(alice.user).refresh_token
    with operator():
        assert all(token not in str(value) for row in RefreshToken.objects.values_list() for value in row)


def test_a_second_use_within_the_grace_is_refused_and_leaves_the_family_alive(anonymous: Ask, alice: Person) -> None:
    first = session_of(alice.user).refresh_token
    second = refresh(anonymous, first)["refreshToken"]
    age_uses(4)
    assert refresh(anonymous, first) == INVALID
    assert refresh(anonymous, second)["__typename"] == "Session"


def test_a_second_use_after_the_grace_ends_the_family_and_no_other(anonymous: Ask, alice: Person) -> None:
    stolen, elsewhere = (session_of(alice.user).refresh_token for _ in range(2))
    second = refresh(anonymous, stolen)["refreshToken"]
    age_uses(6)
    assert refresh(anonymous, stolen) == INVALID
    assert refresh(anonymous, second) == INVALID
    assert refresh(anonymous, elsewhere)["__typename"] == "Session"


def test_a_second_use_after_the_grace_ends_the_access_tokens_at_once(anonymous: Ask, alice: Person) -> None:
    stolen = session_of(alice.user).refresh_token
    thief = refresh(anonymous, stolen)["accessToken"]
    assert principal_of(thief).user_id == alice.user.pk
    age_uses(6)
    refresh(anonymous, stolen)
    with pytest.raises(InvalidToken):
        principal_of(thief)
    assert principal_of(alice.token).user_id == alice.user.pk  # of another session


def test_an_access_token_outlives_the_rotation_of_its_session(anonymous: Ask, alice: Person) -> None:
    first = session_of(alice.user)
    refresh(anonymous, first.refresh_token)
    assert principal_of(first.access_token).user_id == alice.user.pk


@pytest.mark.parametrize("change", [{"revoked_at": timezone.now()}, {"expires_at": timezone.now()}])
def test_a_revoked_and_an_expired_token_are_refused(anonymous: Ask, alice: Person, change: dict[str, Any]) -> None:
    token = session_of(alice.user).refresh_token
    with operator():
        RefreshToken.objects.update(**change)
    assert refresh(anonymous, token) == INVALID


def test_the_token_of_a_closed_account_is_refused(anonymous: Ask, alice: Person) -> None:
    token = session_of(alice.user).refresh_token
    User.objects.update(is_active=False)
    assert refresh(anonymous, token) == INVALID


@pytest.mark.parametrize("token", ["", "x", "\x00", "\ud800", "→", "x" * 100_000])
def test_an_unknown_token_is_refused(anonymous: Ask, alice: Person, token: str) -> None:
    before = count()
    assert refresh(anonymous, token) == INVALID
    assert count() == before


RACE = """
from concurrent.futures import ThreadPoolExecutor
from accounts import tokens

def refresh(_):
    try:
        return tokens.rotate({token!r}).refresh_token
    except tokens.InvalidToken:
        return "refused"

with ThreadPoolExecutor(10) as threads:
    print(*threads.map(refresh, range(10)), flush=True)
"""


@pytest.mark.django_db(transaction=True)
def test_of_twenty_parallel_refreshes_one_wins_and_its_session_lives(anonymous: Ask) -> None:
    first = session_of(make_person("Alice").user)
    racers = [start_python(RACE.format(token=first.refresh_token)) for _ in range(2)]
    answers = [word for racer in racers for word in racer.communicate(timeout=60)[0].split()]
    assert len(answers) == 20
    assert answers.count("refused") == 19
    with operator():
        assert RefreshToken.objects.exclude(revoked_at=None).count() == 0
        assert RefreshToken.objects.filter(family=read(first.access_token).session).count() == 2
    assert principal_of(first.access_token).user_id == first.user.pk
    winner = next(answer for answer in answers if answer != "refused")
    assert refresh(anonymous, winner)["__typename"] == "Session"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", ["log out", "sign out everywhere"])
def test_a_rotation_that_is_under_way_does_not_outlast_the_end_of_its_session(anonymous: Ask, end: str) -> None:
    """The new token is not there yet when its session is revoked, and must not be left over."""
    first = session_of(make_person("Alice").user)

    def revoke_it() -> None:
        if end == "log out":
            revoke(first.refresh_token)
        else:
            with operator():
                revoke_all(first.user)

    with in_another_thread() as begin:
        with operator():
            second = _exchanged(first.refresh_token)
            assert second is not None
            revoking = begin(revoke_it)
        revoking.result(timeout=10)
    assert refresh(anonymous, second.refresh_token) == INVALID
    with pytest.raises(InvalidToken):
        principal_of(second.access_token)


@pytest.mark.parametrize(("day", "goes_on"), [(29, True), (30, False)])
def test_a_session_ends_after_30_days_however_often_it_is_gone_on_with(
    anonymous: Ask, alice: Person, day: int, goes_on: bool
) -> None:
    session = {"refreshToken": session_of(alice.user).refresh_token}
    for _ in range(2):
        let_pass(timedelta(days=10))
        session = refresh(anonymous, session["refreshToken"])
    let_pass(timedelta(days=day - 20))
    alice.token = session["accessToken"]
    assert ("errors" not in alice.ask("{ me { email } }")) is goes_on
    assert (refresh(anonymous, session["refreshToken"])["__typename"] == "Session") is goes_on


def let_pass(time: timedelta) -> None:
    """Everything lies so much further back: the clock is the far edge."""
    with operator():
        RefreshToken.objects.update(begun_at=F("begun_at") - time, expires_at=F("expires_at") - time)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT family FROM accounts_refreshtoken",
        "UPDATE accounts_refreshtoken SET revoked_at = NULL",
        "DELETE FROM accounts_refreshtoken",
        "INSERT INTO accounts_refreshtoken DEFAULT VALUES",
    ],
)
def test_no_tenants_scope_reads_or_writes_one(alice: Person, statement: str) -> None:
    before = count()
    with pytest.raises(ProgrammingError, match="permission denied"), tenant(alice.principal):
        connection.cursor().execute(statement)
    assert count() == before
