"""What PostgreSQL itself says of the tables, read from pg_catalog: not what models or migrations mean to be there."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from django.db import connection

TENANT = "organization_id"
ORGANIZATIONS = "accounts_organization"

TABLES = """
SELECT c.relname, c.relkind, c.relrowsecurity, c.relforcerowsecurity, pg_get_userbyid(c.relowner),
    array(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1
"""
POLICIES = """
SELECT c.relname, polname, array(SELECT coalesce(r.rolname::text, 'public') FROM unnest(polroles) AS given (id)
        LEFT JOIN pg_roles r ON r.oid = given.id), polcmd::text, polpermissive,
    coalesce(pg_get_expr(polqual, polrelid), ''), coalesce(pg_get_expr(polwithcheck, polrelid), '')
FROM pg_policy JOIN pg_class c ON c.oid = polrelid ORDER BY 1, 2
"""
REFERENCES = """
SELECT child.relname, parent.relname, conname,
    array(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute ON attrelid = conrelid AND attnum = number ORDER BY place),
    array(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY AS k (number, place)
        JOIN pg_attribute ON attrelid = confrelid AND attnum = number ORDER BY place)
FROM pg_constraint JOIN pg_class child ON child.oid = conrelid JOIN pg_class parent ON parent.oid = confrelid
WHERE contype = 'f' ORDER BY 1, 3
"""
UNIQUE_INDEXES = """
SELECT c.relname, i.relname, indisprimary,
    array(SELECT attname::text FROM pg_attribute WHERE attrelid = indrelid AND attnum = ANY (indkey::int2[])),
    array(SELECT DISTINCT format_type(atttypid, NULL) FROM pg_attribute
        WHERE attrelid = indrelid AND attnum = ANY (indkey::int2[]))
FROM pg_index JOIN pg_class c ON c.oid = indrelid JOIN pg_class i ON i.oid = indexrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE indisunique AND n.nspname !~ '^pg_' ORDER BY 1, 2
"""
PRIVILEGES = """
SELECT c.relname, privilege FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    AND has_table_privilege(%s, c.oid, privilege)
"""
TEXTS = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = 'public' AND data_type IN ('character varying', 'text', 'character', 'json', 'jsonb', 'ARRAY')
"""


def rows(query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        return cursor.fetchall()


@dataclass(frozen=True)
class Table:
    name: str
    kind: str
    is_protected: bool
    is_forced: bool
    owner: str
    columns: tuple[str, ...]

    @property
    def tenant_column(self) -> str | None:
        """Whose a row is; None in a table that belongs to nobody."""
        if self.name == ORGANIZATIONS:
            return "id"
        return TENANT if TENANT in self.columns else None


def tables() -> dict[str, Table]:
    return {row[0]: Table(*row[:5], tuple(row[5])) for row in rows(TABLES)}


def tenant_tables() -> dict[str, Table]:
    return {name: table for name, table in tables().items() if table.tenant_column}


@dataclass(frozen=True)
class Policy:
    name: str
    roles: tuple[str, ...]
    command: str
    is_permissive: bool
    using: str
    check: str


def policies() -> dict[str, set[Policy]]:
    found: defaultdict[str, set[Policy]] = defaultdict(set)
    for table, name, roles, *rest in rows(POLICIES):
        found[table].add(Policy(name, tuple(roles), *rest))
    return found


@dataclass(frozen=True)
class Reference:
    table: str
    parent: str
    name: str
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]


def references() -> list[Reference]:
    return [Reference(*row[:3], tuple(row[3]), tuple(row[4])) for row in rows(REFERENCES)]


@dataclass(frozen=True)
class UniqueIndex:
    table: str
    name: str
    is_primary: bool
    columns: tuple[str, ...]
    types: tuple[str, ...]


def unique_indexes() -> list[UniqueIndex]:
    return [UniqueIndex(*row[:3], tuple(row[3]), tuple(row[4])) for row in rows(UNIQUE_INDEXES)]


def privileges(role: str) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for table, privilege in rows(PRIVILEGES, role):
        found[table].add(privilege)
    return found


def text_columns(table: str) -> list[str]:
    return sorted(column for name, column in rows(TEXTS) if name == table)
