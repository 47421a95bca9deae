"""Each layer by itself: QuerySets that scope, actions that authorize, and row level security that backs both.

One may cover for another, so that a leak in one of them shows only here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import DatabaseError, connection

from accounts import permissions
from accounts.permissions import FOR_PEOPLE, Permission
from common.errors import DomainError, NotAllowed, NotFound, NotSignedIn
from common.tenancy import operator, tenant
from platform_site.schema import NODES
from tests.isolation.askers import Asker
from tests.isolation.catalog import Table, rows, tenant_tables
from tests.isolation.catalog_expected import FEWER
from tests.isolation.flaws import expect_none
from tests.isolation.operations import SEEN_BY
from tests.isolation.owner import taken_back
from tests.isolation.world import Tenant, World

# ---------------------------------------------------------------------------------------------- QuerySets


def check_querysets(world: World) -> None:
    """`visible_to`, where row level security shows everything: to everybody their own rows, and no others."""

    def flaws() -> Iterator[str]:
        for asker in world.askers.values():
            principal = asker.principal()
            for kind, model in NODES.items():
                with operator():
                    manager: Any = model._default_manager
                    visible = set(manager.visible_to(principal).values_list("pk", flat=True))
                for whose in (world.ours, world.theirs):
                    row = whose.rows[kind]
                    if (row.pk in visible) != sees(asker, whose, kind):
                        yield f"{kind}.visible_to({asker.name}) is wrong about {whose.word}'s"

    expect_none(flaws())


def sees(asker: Asker, whose: Tenant, kind: str) -> bool:
    if asker.home is not whose or asker.role is None:
        return False
    return kind not in SEEN_BY or asker.may(SEEN_BY[kind])


# ---------------------------------------------------------------------------------------------- actions


def check_authorization(world: World) -> None:
    """`authorize` refuses outsiders as it refuses for what does not exist, whatever they are elsewhere."""

    def flaws() -> Iterator[str]:
        for asker in world.askers.values():
            principal = asker.principal()
            for whose in (world.ours, world.theirs):
                for permission in Permission:
                    expected = _refusal(asker, whose, permission)
                    refusal = _refused(lambda: permissions.authorize(principal, permission, whose.organization.pk))  # noqa: B023
                    if refusal is not expected:
                        yield f"{permission.name} at {whose.word}'s as {asker.name}: {refusal}, not {expected}"

    expect_none(flaws())


def _refusal(asker: Asker, whose: Tenant, permission: Permission) -> type[DomainError] | None:
    if asker.is_anonymous:
        return NotSignedIn
    if asker.is_key and permission in FOR_PEOPLE:
        return NotAllowed  # wherever it is asked for
    if asker.home is not whose:
        return NotFound
    return None if asker.may(permission) else NotAllowed


def _refused(action: Any) -> type[DomainError] | None:
    try:
        action()
    except DomainError as refusal:
        return type(refusal)
    return None


# ---------------------------------------------------------------------------------------------- row level security


def check_row_level_security(world: World) -> None:
    """SQL without a word about organizations, in each tenant's scope: it finds, changes, and adds nothing of the other's."""

    def flaws() -> Iterator[str]:
        for whose, other in [(world.ours, world.theirs), (world.theirs, world.ours)]:
            principal = world.askers["owner" if whose is world.ours else "outsider"].principal()
            for name, table in tenant_tables().items():
                with tenant(principal):
                    yield from (f"{name}: {flaw}" for flaw in _leaks(table, whose, other))
        for name, table in tenant_tables().items():
            if _readable(table) and rows(f"SELECT count(*) FROM {name}") != [(0,)]:
                yield f"{name}: outside any scope there are rows"

    expect_none(flaws())


def _readable(table: Table) -> bool:
    return "SELECT" in FEWER.get(table.name, {"SELECT"})


def _leaks(table: Table, whose: Tenant, other: Tenant) -> Iterator[str]:
    column = table.tenant_column
    if _readable(table):
        found = {key for (key,) in rows(f"SELECT DISTINCT {column} FROM {table.name}")}
        if found - {whose.organization.pk}:
            yield f"{other.word}'s rows are there for {whose.word}"
        if not found:
            yield f"{whose.word} has no rows: make_world() should make some"
    for statement in [f"UPDATE {table.name} SET {column} = {column}", f"DELETE FROM {table.name}"]:
        if touched := _affected(f"{statement} WHERE {column} = %s", other.organization.pk):
            yield f"{statement.split()[0]} by {whose.word} reaches {touched} of {other.word}'s"
    if _affected(COPY.format(table=table.name, column=column, columns=", ".join(table.columns)), other.organization.pk):
        yield f"INSERT by {whose.word} makes rows of {other.word}'s"


COPY = """INSERT INTO {table} ({columns}) SELECT {columns} FROM (
    SELECT (jsonb_populate_record(t, jsonb_build_object('{column}', %s::text))).* FROM {table} t) AS copied"""
REFUSED, FOREIGN_KEY_VIOLATION = "42501", "23503"


def _affected(statement: str, organization_id: object) -> int:
    """How many rows. One that is refused affects none; one that fails in another way was not refused."""
    affected = 0
    try:
        with taken_back(), connection.cursor() as cursor:
            cursor.execute(statement, [organization_id])
            affected = cursor.rowcount
    except DatabaseError as error:
        return 0 if getattr(error.__cause__, "pgcode", None) == REFUSED else -1
    return affected


def check_references(world: World) -> None:
    """A row of ours cannot be made to refer to one of theirs, not even by an operator."""

    def flaws() -> Iterator[str]:
        ours, theirs = world.ours.organization.pk, world.theirs.organization.pk
        known = tenant_tables()
        for model in NODES.values():
            for field in model._meta.concrete_fields:
                parent = field.related_model._meta.db_table if field.is_relation else None
                if parent not in known or field.column == known[model._meta.db_table].tenant_column:
                    continue
                with operator():
                    if not _is_held(field, parent, ours, theirs):
                        yield f"{model._meta.db_table}.{field.column} can be made to refer to another's {parent}"

    expect_none(flaws())


def _is_held(field: Any, parent: str, ours: object, theirs: object) -> bool:
    """Whether it is the reference that is refused, and nothing else about the row."""
    table = field.model._meta.db_table
    try:
        with taken_back(), connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            cursor.execute((UNUSED if field.unique else USED).format(table=parent), [theirs])
            (another,) = cursor.fetchone()
            cursor.execute(f"UPDATE {table} SET {field.column} = %s WHERE organization_id = %s", [another, ours])
            return cursor.rowcount == 0
    except DatabaseError as error:
        return getattr(error.__cause__, "pgcode", None) == FOREIGN_KEY_VIOLATION


USED = "SELECT id FROM {table} WHERE organization_id = %s LIMIT 1"
UNUSED = """INSERT INTO {table} SELECT (jsonb_populate_record(t, jsonb_build_object('id', gen_random_uuid()))).*
    FROM {table} t WHERE organization_id = %s LIMIT 1 RETURNING id"""
