"""Changes to the database's shape that end with their block: what the owner could do, and should not have done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, transaction

from common.tenancy import APP_ROLE
from tests.isolation.catalog import tenant_tables


class _TakenBack(Exception):
    pass


@contextmanager
def taken_back() -> Iterator[None]:
    """Whatever is written within is not written."""
    try:
        with transaction.atomic():
            yield
            raise _TakenBack
    except _TakenBack:
        pass


@contextmanager
def changed_by_the_owner(*statements: str) -> Iterator[None]:
    """The database after the statements, within the block."""
    with taken_back():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL ROLE NONE")  # the login's own
            for statement in statements:
                cursor.execute(statement)
            cursor.execute(f"SET LOCAL ROLE {APP_ROLE}")
        yield


@contextmanager
def without_row_level_security() -> Iterator[None]:
    """What the code alone keeps apart, within the block."""
    with changed_by_the_owner(*(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY" for table in tenant_tables())):
        yield
