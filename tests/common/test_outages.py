"""What is an outage, what passes by itself, and what is a bug of ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from django.db import Error, connection, transaction

from common import outages
from common.outages import Patience, is_away, told, will_pass

pytestmark = pytest.mark.django_db(transaction=True)


def ask(*statements: str) -> Callable[[], None]:
    def run() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    return run


def lock_timeout() -> None:
    """Ask for a lock that another connection holds."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(7)")
            taken.set()
            done.wait(10)
        connection.close()

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(10)
    try:
        ask("SET LOCAL lock_timeout = 50", "SELECT pg_advisory_xact_lock(7)")()
    finally:
        done.set()
        holder.join()


def cut() -> None:
    """Be idle in a transaction for too long."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 50")
        time.sleep(0.5)
        cursor.execute("SELECT 1")


def raised_by(action: Callable[[], None]) -> Error:
    with pytest.raises(Error) as raised:
        action()
    return raised.value


@pytest.mark.parametrize(
    ("action", "away", "passing", "begins"),
    [
        (cut, True, True, "The database is away: "),
        (lock_timeout, False, True, "The database refused: canceling statement due to lock timeout"),
        (ask("DO $$ BEGIN RAISE EXCEPTION SQLSTATE '40P01'; END $$"), False, True, "The database refused: "),
        (ask("SELECT 1/0"), False, False, "The database refused: division by zero"),
        (ask("DO $$ BEGIN RAISE EXCEPTION SQLSTATE 'XX001'; END $$"), False, False, "The database refused: "),
    ],
    ids=["a connection that is cut", "a lock timeout", "a deadlock", "a question of ours", "damaged data"],
)
def test_which_errors_are_which(action: Callable[[], None], away: bool, passing: bool, begins: str) -> None:
    error = raised_by(action)
    connection.close()
    assert (is_away(error), will_pass(error)) == (away, passing)
    assert told(error).startswith(begins)


def test_who_waits_for_a_bug_would_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "RETRY_EVERY_S", 0.0)
    Patience().wait(raised_by(lock_timeout))
    error = raised_by(ask("DO $$ BEGIN RAISE EXCEPTION SQLSTATE 'XX001'; END $$"))
    with pytest.raises(type(error)) as raised:
        Patience().wait(error)
    assert raised.value is error
