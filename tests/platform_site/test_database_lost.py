"""A request whose connection to the database breaks is answered 503, and the next one finds another connection."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.db import connection, transaction

from common.ownership import as_owner
from common.tenancy import operator
from datasets.models import Upload
from tests.cast import Person, make_person
from tests.web import serving, soon

pytestmark = pytest.mark.django_db(transaction=True)

WHO = "{ me { email memberships { organization { name } } } }"
UPLOAD = 'mutation { startUpload(input: {fileName: "x", sizeBytes: 1}) { __typename } }'


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def site() -> Iterator[str]:
    with serving() as url:
        yield url


def ask(site: str, person: Person, document: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {person.token}"}
    return httpx.post(f"{site}/graphql", json={"query": document}, headers=headers, timeout=30, trust_env=False)


def assert_unavailable(answer: httpx.Response) -> None:
    assert (answer.status_code, answer.headers["Retry-After"], answer.json()["data"]) == (503, "5", None)
    (error,) = answer.json()["errors"]
    assert error["extensions"] == {"code": "UNAVAILABLE", "retryAfter": 5}


def end_those_who_wait_for_a_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE NONE")
        cursor.execute(
            """SELECT count(pg_terminate_backend(pid)) FROM pg_locks JOIN pg_database ON pg_database.oid = database
               WHERE NOT granted AND datname = current_database() AND relation IN ('accounts_user'::regclass, 'accounts_organization'::regclass)"""
        )
        ended: int = cursor.fetchone()[0]
        cursor.execute("SET ROLE platform_app")
    return ended


@pytest.mark.parametrize("table", ["accounts_user", "accounts_organization"])  # asked before GraphQL begins, and in it
def test_in_a_query(site: str, ada: Person, table: str) -> None:
    with ThreadPoolExecutor(1) as client, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        answer = client.submit(ask, site, ada, WHO)
        assert soon(lambda: end_those_who_wait_for_a_lock() == 1)
        assert_unavailable(answer.result())
    assert ask(site, ada, WHO).status_code == 200


@pytest.fixture
def commits_that_fail() -> Iterator[None]:
    """The server dies to whoever commits an upload."""
    with as_owner(), connection.cursor() as cursor:
        cursor.execute(
            """CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
               $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
               CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON datasets_upload DEFERRABLE INITIALLY DEFERRED
               FOR EACH ROW EXECUTE FUNCTION die()"""
        )
    yield
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER dies ON datasets_upload; DROP FUNCTION die()")


def test_at_the_commit_of_a_mutation(site: str, ada: Person, commits_that_fail: None) -> None:
    assert_unavailable(ask(site, ada, UPLOAD))
    with operator():
        assert not Upload.objects.exists()
    assert ask(site, ada, WHO).status_code == 200


@pytest.fixture
def idle() -> Iterator[Any]:
    """A connection that has answered once."""
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        other.pid = cursor.fetchone()[0]
    yield other
    other.close()


def asked_last(other: Any) -> str:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("SELECT query FROM pg_stat_activity WHERE pid = %s", [other.pid])
        query: str = cursor.fetchone()[0]
    return query


def test_an_idle_connection_is_not_asked_whether_it_works(idle: Any) -> None:
    assert idle.is_usable()
    assert asked_last(idle) == "SELECT pg_backend_pid()"


def test_after_an_error_it_is_asked(idle: Any) -> None:
    idle.errors_occurred = True
    assert idle.is_usable()
    assert asked_last(idle) == "SELECT 1"


def test_a_connection_that_the_server_has_ended_cannot_be_used(idle: Any) -> None:
    with as_owner(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [idle.pid])
    assert not idle.is_usable()
