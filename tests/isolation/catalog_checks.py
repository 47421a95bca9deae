"""Whether the catalog is what it has to be. Each check raises AssertionError that names the table at fault."""

from __future__ import annotations

from collections.abc import Iterator

from django.apps import apps

from common.tenancy import APP_ROLE, OPERATOR_ROLE
from tests.isolation.catalog import (
    TENANT,
    Reference,
    policies,
    privileges,
    references,
    rows,
    tables,
    tenant_tables,
    unique_indexes,
)
from tests.isolation.catalog_expected import ALL, FEWER, NOBODYS, NOT_OF_THE_ORGANIZATION, expected_policies
from tests.isolation.flaws import expect_none

MAY = "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication FROM pg_roles WHERE rolname = %s"
MEMBER_OF = """SELECT g.rolname, admin_option, inherit_option, set_option FROM pg_auth_members m
    JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = %s"""
WITH_OWNERS_RIGHTS = """SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE prosecdef AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"""


def check_every_table_is_somebodys() -> None:
    """Each has an organization, or is named among those that belong to nobody. A view would run with its owner's rights."""
    known = tables()
    unnamed = [name for name, table in known.items() if table.tenant_column is None and name not in NOBODYS]
    views = [name for name, table in known.items() if table.kind not in ("r", "p")]
    expect_none(
        [
            f"{name} has no {TENANT}: give it one and ProtectTable, or name it in NOBODYS with the reason"
            for name in unnamed
        ]
        + [f"{name} is no table (relkind {known[name].kind}): row level security does not hold it" for name in views]
        + [
            f"{name} is in NOBODYS, and has an organization or is gone"
            for name in NOBODYS
            if name not in known or known[name].tenant_column
        ]
    )


def check_row_level_security_is_forced() -> None:
    expect_none(
        f"{name}: row level security is {'not forced' if table.is_protected else 'off'}; its migration wants ProtectTable"
        for name, table in tenant_tables().items()
        if not (table.is_protected and table.is_forced)
    )


def check_policies() -> None:
    def flaws() -> Iterator[str]:
        found = policies()
        for name, table in tenant_tables().items():
            expected = expected_policies(table)
            yield from (f"{name} has a policy that it should not: {policy}" for policy in found[name] - expected)
            yield from (f"{name} lacks a policy: {policy}" for policy in expected - found[name])

    expect_none(flaws())


def check_references_stay_in_the_organization() -> None:
    """Row level security does not check references: between tenants' tables they include the organization."""
    ours = tenant_tables()

    def pairs(reference: Reference) -> set[tuple[str, str]]:
        return set(zip(reference.columns, reference.parent_columns, strict=True))

    expect_none(
        f"{reference.table}: {reference.name} refers to {reference.parent} without the organization; use TenantForeignKey"
        for reference in references()
        if reference.table in ours and reference.parent in ours
        and (ours[reference.table].tenant_column, ours[reference.parent].tenant_column) not in pairs(reference)
    )  # fmt: skip


def check_each_reference_of_a_model_is_one_of_the_database() -> None:
    """`db_constraint=False` is for TenantForeignKey: a column that refers to a tenant's table without either holds anything."""
    ours = tenant_tables()
    held = {(reference.table, column) for reference in references() for column in reference.columns}
    expect_none(
        f"{model._meta.db_table}.{field.column} refers to {field.related_model._meta.db_table}, and no constraint holds it"
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if field.is_relation and field.related_model._meta.db_table in ours
        and (model._meta.db_table, field.column) not in held
    )  # fmt: skip


def check_unique_indexes_include_the_organization() -> None:
    """Or a refusal would tell of another's row. A key of random bits tells nothing, and no client chooses a number."""
    ours = tenant_tables()
    indexes = {index.name: index for index in unique_indexes() if index.table in ours}
    spanning = [
        index
        for index in indexes.values()
        if ours[index.table].tenant_column not in index.columns
        and not (index.is_primary and set(index.types) <= {"uuid", "bigint"})
    ]
    expect_none(
        [
            f"{index.table}: {index.name} {index.columns} spans organizations; include the organization, or name it in "
            "NOT_OF_THE_ORGANIZATION with the reason"
            for index in spanning
            if index.name not in NOT_OF_THE_ORGANIZATION
        ]
        + [
            f"{name} is in NOT_OF_THE_ORGANIZATION, and is gone"
            for name in NOT_OF_THE_ORGANIZATION
            if name not in indexes
        ]
    )


def check_privileges() -> None:
    may = privileges(APP_ROLE)
    expect_none(
        f"{APP_ROLE} may {sorted(may[name])} on {name}, not {sorted(FEWER.get(name, ALL))}"
        for name in tables()
        if may[name] != FEWER.get(name, ALL)
    )


def check_roles() -> None:
    """Whoever is platform_app gets no further than to platform_operator, and there only by asking."""

    def flaws() -> Iterator[str]:
        for role in (APP_ROLE, OPERATOR_ROLE):
            (attributes,) = rows(MAY, role)
            if any(attributes):
                yield f"{role} may more than it should: {MAY.partition(' FROM')[0]} {attributes}"
            yield from (f"{role} owns {name}" for name, table in tables().items() if table.owner == role)
        owners = {table.owner for table in tables().values()} - {APP_ROLE, OPERATOR_ROLE}
        expected = {APP_ROLE: [(OPERATOR_ROLE, False, False, True)], OPERATOR_ROLE: []}
        for role, groups in expected.items():
            if rows(MEMBER_OF, role) != groups:
                yield f"{role} is a member of {rows(MEMBER_OF, role)}, not {groups} (role, admin, inherit, set)"
            for owner in owners:
                if rows("SELECT pg_has_role(%s, %s, 'SET')", role, owner) != [(False,)]:
                    yield f"{role} may SET ROLE {owner}, who owns tables"
        yield from (f"{name}() runs with its owner's rights" for (name,) in rows(WITH_OWNERS_RIGHTS))

    expect_none(flaws())


CHECKS = [
    check_every_table_is_somebodys,
    check_row_level_security_is_forced,
    check_policies,
    check_references_stay_in_the_organization,
    check_each_reference_of_a_model_is_one_of_the_database,
    check_unique_indexes_include_the_organization,
    check_privileges,
    check_roles,
]
