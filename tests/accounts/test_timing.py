"""How long an answer takes does not tell whether an address has an account: the same is done for both."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from statistics import median
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.actions import identity, passwords
from common.errors import DomainError
from platform_site import settings as deployment
from tests.cast import PASSWORD, Person

KNOWN, UNKNOWN = "alice@example.com", "nobody@example.com"
RUNS = 5


@pytest.fixture
def real_passwords(settings: Any) -> None:
    settings.PASSWORD_HASHERS = deployment.PASSWORD_HASHERS


def cpu_s(action: Callable[[], object]) -> float:
    """The processor's time, which is the hash's; what else the machine does is not counted."""
    began = time.process_time()
    with suppress(DomainError):
        action()
    return time.process_time() - began


def statements(action: Callable[[], object]) -> list[str]:
    """What the database is asked, in order, without what it is asked about, and savepoints' names."""
    with CaptureQueriesContext(connection) as queries:
        action()
    return [re.match(r"(ROLLBACK TO|RELEASE SAVEPOINT|SAVEPOINT|\S+ \S+ \S+)", query["sql"])[1] for query in queries]  # type: ignore[index]


def assert_as_long(known: Callable[[int], object], unknown: Callable[[int], object]) -> None:
    took = [(cpu_s(lambda: known(run)), cpu_s(lambda: unknown(run))) for run in range(RUNS)]  # noqa: B023
    for_known, for_unknown = (median(times) for times in zip(*took, strict=True))
    assert for_known > 0.05, "no hash was computed"
    assert 0.5 < for_unknown / for_known < 2


@pytest.mark.usefixtures("real_passwords")
def test_a_login(alice: Person) -> None:
    alice.user.set_password(PASSWORD)
    alice.user.save()
    assert_as_long(
        lambda run: identity.log_in(email=KNOWN, password="not her password"),
        lambda run: identity.log_in(email=UNKNOWN, password="not her password"),
    )


@pytest.mark.usefixtures("real_passwords")
def test_a_login_to_a_locked_account(alice: Person) -> None:
    alice.user.set_password(PASSWORD)
    alice.user.is_active = False
    alice.user.save()
    assert_as_long(
        lambda run: identity.log_in(email=KNOWN, password=PASSWORD),
        lambda run: identity.log_in(email=UNKNOWN, password=PASSWORD),
    )


@pytest.mark.usefixtures("real_passwords")
def test_a_sign_up_where_addresses_have_to_be_verified(alice: Person, settings: Any) -> None:
    settings.REQUIRE_VERIFIED_EMAIL = True
    assert_as_long(
        lambda run: identity.sign_up(email=KNOWN, password=PASSWORD),
        lambda run: identity.sign_up(email=f"{run}{UNKNOWN}", password=PASSWORD),
    )


def differing(known: Callable[[], object], unknown: Callable[[], object]) -> list[tuple[str, str]]:
    """Where one asks the database something else than the other, which asks as often."""
    return [pair for pair in zip(statements(known), statements(unknown), strict=True) if pair[0] != pair[1]]


def test_a_request_to_reset_a_password_asks_the_database_the_same(alice: Person) -> None:
    assert differing(
        lambda: passwords.request_password_reset(email=KNOWN),
        lambda: passwords.request_password_reset(email=UNKNOWN),
    ) == [("RELEASE SAVEPOINT", "ROLLBACK TO")]  # of the mail


def test_a_sign_up_asks_the_database_the_same_where_addresses_have_to_be_verified(alice: Person, settings: Any) -> None:
    settings.REQUIRE_VERIFIED_EMAIL = True
    assert differing(
        lambda: identity.sign_up(email=KNOWN, password=PASSWORD),
        lambda: identity.sign_up(email=UNKNOWN, password=PASSWORD),
    ) == [("ROLLBACK TO", "RELEASE SAVEPOINT")]  # of the account
