"""No table can forget that it is a tenant's: PostgreSQL's own catalog says what protects each."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.isolation import catalog_checks as checks
from tests.isolation.catalog import tenant_tables
from tests.isolation.owner import changed_by_the_owner

pytestmark = pytest.mark.django_db

NOTES = "CREATE TABLE notes (id uuid PRIMARY KEY, organization_id uuid NOT NULL, number int, dataset_id uuid)"
PROTECTED = [
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE notes FORCE ROW LEVEL SECURITY",
    *(
        f"CREATE POLICY {name} ON notes TO {role} USING ({sees}) WITH CHECK ({sees})"
        for name, role, sees in [
            (
                "tenant",
                "platform_app",
                "organization_id = ANY (nullif(current_setting('app.organizations', true), '')::uuid[])",
            ),
            ("operator", "platform_operator", "true"),
            ("owner", "CURRENT_USER", "true"),
        ]
    ),
]
FLAWS: dict[str, tuple[Callable[[], None], list[str], str]] = {
    "a table of a tenant without row level security": (
        checks.check_row_level_security_is_forced,
        [NOTES],
        "notes: row level security is off",
    ),
    "one that its owner's own tasks get around": (
        checks.check_row_level_security_is_forced,
        [NOTES, "ALTER TABLE notes ENABLE ROW LEVEL SECURITY"],
        "notes: row level security is not forced",
    ),
    "one without policies": (checks.check_policies, [NOTES], "notes lacks a policy: .*tenant"),
    "a policy that shows everything": (
        checks.check_policies,
        [NOTES, *PROTECTED, "ALTER POLICY tenant ON notes USING (true)"],
        "notes has a policy that it should not: .*using='true'",
    ),
    "a policy that lets anything be written": (
        checks.check_policies,
        [NOTES, *PROTECTED, "ALTER POLICY tenant ON notes WITH CHECK (true)"],
        "notes has a policy that it should not: .*check='true'",
    ),
    "a policy for everybody beside the right ones": (
        checks.check_policies,
        [NOTES, *PROTECTED, "CREATE POLICY debug ON notes FOR SELECT USING (true)"],
        "notes has a policy that it should not: .*'debug', roles=.'public'",
    ),
    "a reference without the organization": (
        checks.check_references_stay_in_the_organization,
        [NOTES, "ALTER TABLE notes ADD FOREIGN KEY (dataset_id) REFERENCES datasets_dataset (id)"],
        "notes: notes_dataset_id_fkey refers to datasets_dataset without the organization",
    ),
    "a composite reference that was dropped": (
        checks.check_each_reference_of_a_model_is_one_of_the_database,
        ["ALTER TABLE training_trainingrun DROP CONSTRAINT training_trainingrun_dataset_version_id_tenant_fk"],
        "training_trainingrun.dataset_version_id refers to datasets_datasetversion, and no constraint holds it",
    ),
    "a unique index across organizations": (
        checks.check_unique_indexes_include_the_organization,
        [NOTES, "CREATE UNIQUE INDEX notes_number ON notes (number)"],
        "notes: notes_number",
    ),
    "a primary key that people choose": (
        checks.check_unique_indexes_include_the_organization,
        ["CREATE TABLE notes (name text PRIMARY KEY, organization_id uuid NOT NULL)"],
        "notes: notes_pkey",
    ),
    "a table without an organization that nobody has thought about": (
        checks.check_every_table_is_somebodys,
        ["CREATE TABLE notes (id uuid PRIMARY KEY, organization uuid)"],
        "notes has no organization_id",
    ),
    "a view, which runs with its owner's rights": (
        checks.check_every_table_is_somebodys,
        ["CREATE VIEW all_datasets AS SELECT * FROM datasets_dataset"],
        "all_datasets is no table",
    ),
    "mails that the application may read": (
        checks.check_privileges,
        ["GRANT SELECT ON common_outboxmessage TO platform_app"],
        "'SELECT'.* on common_outboxmessage",
    ),
    "an audit log that the application may change": (
        checks.check_privileges,
        ["GRANT UPDATE ON accounts_auditentry TO platform_app"],
        "'UPDATE'.* on accounts_auditentry",
    ),
    "tables that the application may empty": (
        checks.check_privileges,
        ["GRANT TRUNCATE ON datasets_dataset TO platform_app"],
        "'TRUNCATE'.* on datasets_dataset",
    ),
    "an application that has the operator's sight without asking": (
        checks.check_roles,
        ["GRANT platform_operator TO platform_app WITH INHERIT TRUE"],
        "platform_app is a member of .*True, True",
    ),
    "an application that row level security does not hold": (
        checks.check_roles,
        ["ALTER ROLE platform_app BYPASSRLS"],
        "platform_app may more than it should",
    ),
    "an application that owns a table": (
        checks.check_roles,
        ["ALTER TABLE datasets_dataset OWNER TO platform_app"],
        "platform_app owns datasets_dataset",
    ),
    "a function with its owner's rights": (
        checks.check_roles,
        [
            "CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM datasets_dataset'"
        ],
        r"peek\(\) runs with its owner's rights",
    ),
}


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_catalog(check: Callable[[], None]) -> None:
    check()


def test_what_the_checks_look_at_is_there() -> None:
    assert len(tenant_tables()) >= 14


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_check_names_what_is_wrong(flaw: str) -> None:
    check, statements, named = FLAWS[flaw]
    with changed_by_the_owner(*statements), pytest.raises(AssertionError, match=re.compile(named)):
        check()


def test_a_new_table_that_is_made_right_is_right() -> None:
    grants = "GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO platform_app"
    with changed_by_the_owner(NOTES, *PROTECTED, grants):
        for check in checks.CHECKS:
            check()
