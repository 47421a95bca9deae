"""The cast (Alice owns, Bob is a member, Charlie is an outsider), the database, and a client of the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import setup_databases, teardown_databases

from accounts.models import Role
from common.ownership import as_owner
from common.queues import connect
from tests.cast import Person, make_person
from tests.emptying import instead_of_flush, leave_rows_where_they_are
from tests.small_disk import SmallDisk, small_disk


@pytest.fixture(scope="session")
def django_db_setup(django_db_modify_db_settings: None, django_db_blocker: Any) -> Iterator[None]:
    """The owner makes the test database; the tests run as platform_app."""
    with django_db_blocker.unblock(), as_owner():
        databases = setup_databases(verbosity=0, interactive=False)
        leave_rows_where_they_are()
    instead_of_flush()
    yield
    with django_db_blocker.unblock(), as_owner():
        _disconnect_threads()
        teardown_databases(databases, verbosity=0)


def _disconnect_threads() -> None:
    """Pools of threads, the web's among them, keep their connections, and a database in use cannot be dropped."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )


@pytest.fixture(autouse=True)
def _fast_passwords(settings: Any) -> None:
    """bcrypt's 12 rounds take a quarter of a second each; the test of the hasher asks for them."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _unhurried(settings: Any) -> None:
    """The cast has the same addresses in each test, and its attempts would add up; tests of the rates set their own."""
    settings.LOGINS_PER_ACCOUNT = settings.ATTEMPTS_PER_ADDRESS = settings.SIGNUPS_PER_ADDRESS = 1_000_000
    settings.MAILS_PER_MAILBOX = settings.INVITATIONS_PER_ORGANIZATION = settings.REQUESTS_PER_MINUTE = 1_000_000


@pytest.fixture(autouse=True)
def home(settings: Any, tmp_path: Path) -> Path:
    """Files of a test lie in its own folder."""
    settings.HOME = tmp_path
    settings.STORAGE_ROOT = tmp_path / "storage"
    settings.ATTEMPTS_ROOT = tmp_path / "attempts"
    settings.INCOMING_ROOT = tmp_path / "incoming"
    settings.CACHED_ADAPTERS_ROOT = tmp_path / "cache" / "adapters"
    settings.QUANTIZED_BASES_ROOT = tmp_path / "cache" / "bases"
    storages = {**settings.STORAGES}
    storages["default"] = {**storages["default"], "OPTIONS": {"location": tmp_path / "storage"}}
    settings.STORAGES = storages
    return tmp_path


@pytest.fixture(autouse=True)
def _without_reports(settings: Any) -> None:
    """Each costs seconds; the tests of them turn them on."""
    settings.REPORTS = False


@pytest.fixture(autouse=True)
def _without_estimates(settings: Any) -> None:
    """Each version would have its tokens counted; the tests of that turn it on."""
    settings.ESTIMATES = False


@pytest.fixture
def quiet_queues() -> Iterator[None]:
    """No rings that an earlier test has left unheard, and no clusters left to the later ones."""
    with connect() as client:
        client.flushdb()
    yield
    with connect() as client:
        client.flushdb()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of a megabyte, to be filled."""
    with ExitStack() as mounted:
        try:
            made = mounted.enter_context(small_disk(tmp_path / "disk", 1 << 20))
        except OSError as error:
            pytest.skip(str(error))
        yield made


@pytest.fixture
def alice(db: None) -> Person:
    return make_person("Alice")


@pytest.fixture
def bob(alice: Person) -> Person:
    return make_person("Bob", alice.organization, Role.MEMBER)


@pytest.fixture
def vera(alice: Person) -> Person:
    return make_person("Vera", alice.organization, Role.VIEWER)


@pytest.fixture
def charlie(db: None) -> Person:
    return make_person("Charlie")


@pytest.fixture
def anonymous(db: None) -> Callable[..., dict[str, Any]]:
    client = Client()

    def ask(document: str, **variables: Any) -> dict[str, Any]:
        body = json.dumps({"query": document, "variables": variables})
        return client.post("/graphql", body, content_type="application/json").json()

    return ask
