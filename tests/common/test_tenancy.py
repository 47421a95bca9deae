"""Row level security holds whatever the code forgets."""

from itertools import product

import pytest
from django.db import DatabaseError, IntegrityError, ProgrammingError, connection, transaction
from django.test.utils import CaptureQueriesContext
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from accounts.models import Organization
from common.tenancy import ScopeError, in_scope, operator, reading, tenant
from datasets.models import Dataset, DatasetVersion, Upload
from tests.cast import Person, current_role, make_person

pytestmark = pytest.mark.django_db(transaction=True)


def make_dataset(person: Person, name: str) -> Dataset:
    with tenant(person.principal):
        return Dataset.objects.create(organization=person.organization, name=name)


def test_tests_run_as_the_app_role_in_a_test_database() -> None:
    role, database = current_role()
    assert role == "platform_app"
    assert database.startswith("test_")


def test_a_tenant_sees_its_own_rows_and_no_scope_sees_none() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    make_dataset(alice, "a")
    make_dataset(charlie, "c")
    assert list(Dataset.objects.all()) == []
    with tenant(alice.principal):
        assert [dataset.name for dataset in Dataset.objects.all()] == ["a"]
    assert list(Dataset.objects.all()) == []
    with operator():
        assert {dataset.name for dataset in Dataset.objects.all()} == {"a", "c"}
    assert list(Dataset.objects.all()) == []


def test_a_tenant_cannot_write_for_another() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    theirs = make_dataset(charlie, "c")
    with pytest.raises(ProgrammingError, match="row-level security"), tenant(alice.principal):
        Dataset.objects.create(organization=charlie.organization, name="planted")
    with tenant(alice.principal):
        assert Dataset.objects.filter(pk=theirs.pk).update(name="stolen") == 0
        assert Dataset.objects.filter(pk=theirs.pk).delete()[0] == 0
    with operator():
        assert [dataset.name for dataset in Dataset.objects.all()] == ["c"]


def test_a_row_cannot_refer_to_another_organizations() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    theirs = make_dataset(charlie, "c")
    with operator():
        upload = Upload.objects.create(organization=alice.organization, file_name="f", size_bytes=1)
    version = DatasetVersion(
        organization=alice.organization, dataset=theirs, upload=upload, number=1, recipe={}, fingerprint=""
    )
    with pytest.raises(IntegrityError, match="datasets_datasetversion_dataset_id_tenant_fk"), operator():
        version.save()


def test_scopes_do_not_nest() -> None:
    alice = make_person("Alice")
    arguments = {tenant: (alice.principal,), reading: (alice.principal,), operator: ()}
    for outer, inner in product(arguments, repeat=2):
        with outer(*arguments[outer]), pytest.raises(ScopeError), inner(*arguments[inner]):
            pass
        assert not in_scope()


def setting() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(current_setting('app.organizations', true), '')")
        value: str = cursor.fetchone()[0]
    return value


def test_what_only_reads_takes_one_exchange_for_each_statement_and_leaves_nothing_between_two() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    make_dataset(alice, "a")
    make_dataset(charlie, "c")
    with CaptureQueriesContext(connection) as exchanges, reading(alice.principal):
        assert [dataset.name for dataset in Dataset.objects.all()] == ["a"]
        assert connection.connection.info.transaction_status == TRANSACTION_STATUS_IDLE
        assert Dataset.objects.filter(name="c").first() is None
    assert len(exchanges) == 2
    assert setting() == ""
    assert list(Dataset.objects.all()) == []


def test_rows_that_are_read_piece_by_piece_are_the_scopes_own_and_leave_no_cursor() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    for name in ("a", "b"):
        make_dataset(alice, name)
    make_dataset(charlie, "c")
    for scope in (reading, tenant):
        with scope(alice.principal):
            names = Dataset.objects.order_by("name").iterator(chunk_size=1)
            assert next(names).name == "a"
            assert [dataset.name for dataset in names] == ["b"]
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM pg_cursors WHERE is_holdable")
            assert cursor.fetchall() == []
    assert list(Dataset.objects.iterator()) == []


def test_what_only_reads_goes_on_after_an_error() -> None:
    alice = make_person("Alice")
    make_dataset(alice, "a")
    with reading(alice.principal):
        with pytest.raises(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT 1 / 0")
        assert Dataset.objects.count() == 1
    assert setting() == ""


def test_what_only_reads_ends_with_its_block_also_inside_a_transaction() -> None:
    alice = make_person("Alice")
    make_dataset(alice, "a")
    with transaction.atomic():
        with reading(alice.principal):
            assert Dataset.objects.count() == 1
        assert setting() == ""
        assert Dataset.objects.count() == 0


def test_a_scope_ends_with_its_block_also_inside_a_transaction_and_after_an_error() -> None:
    alice = make_person("Alice")
    make_dataset(alice, "a")
    with transaction.atomic():
        with tenant(alice.principal):
            assert Dataset.objects.count() == 1
        assert Dataset.objects.count() == 0
        with operator():
            assert Organization.objects.count() == 1
        assert Organization.objects.count() == 0
        with pytest.raises(ZeroDivisionError), operator():
            raise ZeroDivisionError
        assert current_role()[0] == "platform_app"
        assert Organization.objects.count() == 0


def test_every_table_with_an_organization_forces_row_level_security() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity, count(p.polname) FROM pg_class c
               JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'organization_id' AND NOT a.attisdropped
               LEFT JOIN pg_policy p ON p.polrelid = c.oid
               WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace GROUP BY 1, 2"""
        )
        tables = cursor.fetchall()
    assert len(tables) >= 7
    assert [name for name, forced, policies in tables if not forced or policies != 3] == []


def test_the_app_role_does_not_inherit_the_operators_sight() -> None:
    make_dataset(make_person("Alice"), "a")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM datasets_dataset")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = 'platform_app'")
        assert cursor.fetchone() == (False,)
