"""Where a pool is spent, whoever comes is turned away at once and told when to come again; whoever was in it is served."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx
import psycopg2
import pytest
from django.core.wsgi import get_wsgi_application
from django.db import connection, transaction

from common.ownership import as_owner
from platform_site import asgi
from platform_site.web_threads import WebThreads
from tests.cast import Person, make_person
from tests.processes import environment
from tests.web import serving, soon, web_process

pytestmark = pytest.mark.django_db(transaction=True)

THREADS = 3
WHO = {"query": "{ me { email } }"}


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(asgi, "threads", WebThreads(get_wsgi_application(), THREADS))
    with serving() as url:
        yield url


@contextmanager
def nobody_is_told_apart() -> Iterator[None]:
    """Each request that needs to know who is asking waits in PostgreSQL for the length of the block."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE accounts_membership IN ACCESS EXCLUSIVE MODE")
        yield


def ask(site: str, person: Person, timeout_s: float = 30.0) -> httpx.Response:
    headers = {"Authorization": f"Bearer {person.token}"}
    return httpx.post(f"{site}/graphql", json=WHO, headers=headers, timeout=timeout_s, trust_env=False)


def ready(site: str) -> httpx.Response:
    return httpx.get(f"{site}/readyz", timeout=10, trust_env=False)


def waiting_for_the_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute(  # another test's database may have the table under the same number
            """SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
               WHERE NOT granted AND datname = current_database() AND relation = 'accounts_membership'::regclass"""
        )
        count: int = cursor.fetchone()[0]
    return count


def test_beyond_the_threads_and_as_long_a_line_a_request_is_turned_away_and_all_before_it_succeed(
    site: str, ada: Person
) -> None:
    people = [ada, *(make_person(f"Ben {number}") for number in range(2 * THREADS - 1))]
    with ThreadPoolExecutor(2 * THREADS) as clients:
        with nobody_is_told_apart():
            patient = [clients.submit(ask, site, person) for person in people]
            assert soon(lambda: ready(site).status_code == 503)
            assert soon(lambda: waiting_for_the_lock() == THREADS)

            asked_at = time.monotonic()
            refused = ask(site, ada)
            assert time.monotonic() - asked_at < 1
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
            assert refused.json() == {
                "data": None,
                "errors": [
                    {
                        "message": "More is being asked than can be answered now; try again in a moment.",
                        "extensions": {"code": "BUSY", "retryAfter": 2},
                    }
                ],
            }
            assert httpx.get(f"{site}/livez", trust_env=False).json() == {"status": "ok"}
            assert ready(site).json() == {
                "status": "unavailable",
                "failing": {"threads": "All 3 are taken, and no more requests can wait for one."},
            }
            assert not any(request.done() for request in patient)
        answers = [request.result() for request in patient]
    assert [answer.json()["data"]["me"]["email"] for answer in answers] == [person.user.email for person in people]
    assert ready(site).status_code == 200
    assert ask(site, ada).status_code == 200


def test_whoever_asks_for_too_much_is_turned_away_and_others_are_not(site: str, ada: Person) -> None:
    ben = make_person("Ben")
    with ThreadPoolExecutor(3 * THREADS) as clients:
        with nobody_is_told_apart():
            flood = [clients.submit(ask, site, ada) for _ in range(2 * THREADS + 2)]
            assert soon(lambda: sum(request.done() for request in flood) == 2)
            assert ready(site).status_code == 200
            one = clients.submit(ask, site, ben)
            assert soon(lambda: sum(request.done() for request in flood) == 3)
            assert not one.done()
        assert one.result().json() == {"data": {"me": {"email": ben.user.email}}}
        assert Counter(request.result().status_code for request in flood) == {200: 2 * THREADS - 1, 503: 3}


def test_whoever_waits_too_long_for_a_thread_is_turned_away_and_others_at_once_until_one_is_free(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "threads", WebThreads(get_wsgi_application(), 1, patience_s=0.5))
    with serving() as site, ThreadPoolExecutor(1) as clients:
        with nobody_is_told_apart():
            served = clients.submit(ask, site, ada)
            assert soon(lambda: waiting_for_the_lock() == 1)
            assert ready(site).status_code == 200
            began = time.monotonic()
            assert ask(site, ada).status_code == 503
            assert 0.5 <= time.monotonic() - began < 5
            for _ in range(3):
                assert ask(site, ada).status_code == 503
            assert ready(site).status_code == 503
        assert served.result().status_code == 200
        assert ready(site).status_code == 200
        assert ask(site, ada).status_code == 200


CONNECTIONS = 4


@pytest.fixture
def limited() -> Iterator[str]:
    """A DATABASE_URL whose login may have a few connections, and no more."""
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(
            f"CREATE ROLE limited LOGIN CONNECTION LIMIT {CONNECTIONS} IN ROLE platform_app, platform_operator"
        )
    try:
        scheme, _, rest = environment()["DATABASE_URL"].partition("://")
        yield f"{scheme}://limited@{rest.partition('@')[2]}"
    finally:
        with as_owner(), connection.cursor() as cursor:
            cursor.execute("DROP ROLE limited")


def take_all_connections(url: str, others: ExitStack) -> None:
    for _ in range(CONNECTIONS + 1):
        others.enter_context(closing(psycopg2.connect(url)))


def test_where_postgresql_has_no_connection_left_the_answer_is_503_and_soon_after_it_is_200(
    limited: str, ada: Person, tmp_path: Path
) -> None:
    with web_process(tmp_path, DATABASE_URL=limited) as site:
        with ExitStack() as others:
            with pytest.raises(psycopg2.OperationalError, match="too many connections"):
                take_all_connections(limited, others)
            api, page = ask(site, ada), httpx.get(f"{site}/admin/login/", trust_env=False)
            assert (api.status_code, api.headers["Retry-After"]) == (503, "5")
            assert api.json()["errors"][0]["extensions"] == {"code": "UNAVAILABLE", "retryAfter": 5}
            assert (page.status_code, page.headers["Retry-After"]) == (503, "5")
            assert page.text == "The database cannot be reached; try again in a moment."
        assert soon(lambda: ask(site, ada).status_code == 200)
        assert httpx.get(f"{site}/admin/login/", trust_env=False).status_code == 200
