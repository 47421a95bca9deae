"""A connection that goes from one tenant to the other takes nothing along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection

from common import tenancy
from tests.isolation.turns import MISHAPS, check_turns
from tests.isolation.world import World, make_world

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def fresh() -> World:
    """Made anew: what is asked here is committed."""
    return make_world()


def test_a_thousand_requests_of_two_tenants_over_one_connection(fresh: World) -> None:
    assert connection.get_autocommit() and not connection.in_atomic_block
    check_turns(fresh, 1000)


def set_for_the_session(value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('app.organizations', %s, false)", [value])


def selected_by_who_stays_operator(select: str, parameters: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"SET ROLE {tenancy.OPERATOR_ROLE};{select}", parameters)
        return cursor.fetchall()


@pytest.fixture
def fresh_connection() -> Iterator[None]:
    yield
    connection.close()


@pytest.mark.usefixtures("fresh_connection")
@pytest.mark.parametrize(
    ("name", "leak", "request_"),
    [
        ("common.tenancy.BRINGING", "SET app.organizations TO '%s';", "0, datasets as owner"),
        ("common.tenancy._set_organizations", set_for_the_session, "10, cancelTrainingRun as owner"),
        ("accounts.principals.selected_by_operator", selected_by_who_stays_operator, "0, datasets as owner"),
    ],
    ids=["a scope that outlasts its statement", "a scope that outlasts its transaction", "an operator who stays one"],
)
def test_a_scope_that_stays_on_the_connection_is_found(
    fresh: World, monkeypatch: pytest.MonkeyPatch, name: str, leak: Any, request_: str
) -> None:
    monkeypatch.setattr(name, leak)
    with pytest.raises(AssertionError, match=f"after request {request_}, the connection is"):
        check_turns(fresh, 20)


def test_each_mishap_happens(fresh: World) -> None:
    """Ten requests lie between two of them: a thousand have each of them several times."""
    assert 1000 // 10 // len(MISHAPS) >= 10
    for mishap in MISHAPS.values():
        mishap(fresh.askers["owner"])
