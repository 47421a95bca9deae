"""A thread's connection is asked whether it lives only where that is in doubt."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import OperationalError, connection

from common import threads
from common.threads import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def one() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1)


def backend() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def cut() -> None:
    """The way to the database is gone, and nobody has told this thread."""
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as way:
        way.shutdown(socket.SHUT_RDWR)


async def test_a_connection_that_has_just_answered_is_not_asked_first(one: ThreadPoolExecutor) -> None:
    first = await in_thread(backend, one)
    assert await in_thread(backend, one) == first
    await in_thread(cut, one)
    with pytest.raises(OperationalError):
        await in_thread(backend, one)
    assert await in_thread(backend, one) != first


async def test_one_that_was_lost_while_nobody_used_it_is_replaced_in_silence(
    one: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await in_thread(backend, one)
    await in_thread(cut, one)
    monkeypatch.setattr(threads, "FRESH_S", 0.0)
    assert await in_thread(backend, one) != first
