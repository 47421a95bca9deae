"""What an organization may use: the installation's defaults, or what an operator has set for it in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import ProgrammingError
from django.test import Client
from django.urls import reverse

from accounts import audit
from accounts.models import AuditEntry, Organization, Quota, User
from accounts.quotas import Limits, quota_of
from accounts.usage import reserve
from accounts.usage_kinds import UsageKind
from common.errors import QuotaExceeded
from common.tenancy import operator, tenant
from tests.accounts.ledger import allow
from tests.cast import PASSWORD, Person, make_person
from tests.rows import global_id

DEFAULTS = Limits(
    storage_bytes=100 * 2**30,
    concurrent_runs=50,
    training_minutes_per_month=10_000,
    tokens_per_day=5_000_000,
    requests_per_minute=1_200,
)
ASK = """query ($id: ID!) { organization(id: $id) { quota {
  storageBytes concurrentRuns trainingMinutesPerMonth tokensPerDay requestsPerMinute } } }"""
EMPTY = dict.fromkeys(Limits.__dataclass_fields__, "")

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _as_installed(settings: Any, _unhurried: None) -> None:
    settings.REQUESTS_PER_MINUTE = DEFAULTS.requests_per_minute


def limits_of(person: Person) -> Limits:
    with tenant(person.principal):
        return quota_of(person.organization.pk)


def test_by_default_an_organization_may_use_what_the_installation_says(alice: Person, settings: Any) -> None:
    assert limits_of(alice) == DEFAULTS
    settings.QUOTA_TOKENS_PER_DAY = 7
    assert limits_of(alice).tokens_per_day == 7


def test_what_is_set_for_one_counts_for_it_alone_and_nothing_is_a_limit_too(alice: Person, charlie: Person) -> None:
    allow(alice, storage_bytes=0, requests_per_minute=3)
    assert limits_of(alice) == Limits(
        storage_bytes=0,
        concurrent_runs=50,
        training_minutes_per_month=10_000,
        tokens_per_day=5_000_000,
        requests_per_minute=3,
    )
    assert limits_of(charlie) == DEFAULTS


def test_everybody_in_it_sees_what_an_organization_may_use_and_nobody_else(
    alice: Person, vera: Person, charlie: Person
) -> None:
    allow(alice, storage_bytes=2**53, concurrent_runs=1)
    hers = {
        "storageBytes": 2**53,
        "concurrentRuns": 1,
        "trainingMinutesPerMonth": 10_000,
        "tokensPerDay": 5_000_000,
        "requestsPerMinute": 1_200,
    }
    for person in (alice, vera):
        assert person.data(ASK, id=global_id(alice.organization))["organization"] == {"quota": hers}
    assert charlie.data(ASK, id=global_id(alice.organization))["organization"] is None
    his = charlie.data(ASK, id=global_id(charlie.organization))["organization"]["quota"]
    assert his == {**hers, "storageBytes": 100 * 2**30, "concurrentRuns": 50}


@pytest.mark.django_db(transaction=True)
def test_tenants_read_their_own_quota_and_write_none() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    for person in (alice, charlie):
        allow(person, storage_bytes=5)
    with tenant(alice.principal):
        assert [quota.pk for quota in Quota.objects.all()] == [alice.organization.pk]
    writes = [
        lambda: Quota.objects.update(storage_bytes=2**40),
        lambda: Quota.objects.all().delete(),
        lambda: Quota.objects.create(organization=alice.organization),
    ]
    for write in writes:
        with pytest.raises(ProgrammingError, match="permission denied"), tenant(alice.principal):
            write()
    with operator():
        assert {quota.storage_bytes for quota in Quota.objects.all()} == {5}


# ------------------------------------------------------------------------------------------------ the admin


@pytest.fixture
def root(client: Client) -> User:
    user = User.objects.create_superuser("root@example.com", PASSWORD)
    client.force_login(user)
    return user


def form(person: Person, **limits: Any) -> dict[str, Any]:
    """The page of an organization as a browser sends it."""
    with operator():
        has_one = Quota.objects.filter(pk=person.organization.pk).exists()
    inline = {f"quota-0-{name}": value for name, value in {**EMPTY, **limits}.items()}
    return {
        "name": person.organization.name,
        "slug": person.organization.slug,
        "memberships-TOTAL_FORMS": 0,
        "memberships-INITIAL_FORMS": 0,
        "quota-TOTAL_FORMS": 1,
        "quota-INITIAL_FORMS": int(has_one),
        "quota-0-organization": str(person.organization.pk),
        **inline,
    }


def address(organization: Organization) -> str:
    return reverse("admin:accounts_organization_change", args=[organization.pk])


def changes(person: Person) -> list[tuple[str, str, dict[str, Any]]]:
    with operator():
        entries = AuditEntry.objects.filter(organization_id=person.organization.pk, action="quota.change")
        return list(entries.order_by("sequence").values_list("actor", "target", "details"))


def test_what_an_operator_sets_counts_from_then_on_and_is_in_the_audit_log(
    root: User, client: Client, alice: Person
) -> None:
    with tenant(alice.principal):
        reserve(alice.organization.pk, UsageKind.RUNS, 3, key="a")
    me = f"user:{root.pk}"
    assert client.post(address(alice.organization), form(alice, concurrent_runs=3)).status_code == 302
    assert limits_of(alice).concurrent_runs == 3
    with tenant(alice.principal), pytest.raises(QuotaExceeded):
        reserve(alice.organization.pk, UsageKind.RUNS, 1, key="b")
    assert client.post(address(alice.organization), form(alice, concurrent_runs=4, tokens_per_day=0)).status_code == 302
    with tenant(alice.principal):
        reserve(alice.organization.pk, UsageKind.RUNS, 1, key="b")
    assert client.post(address(alice.organization), form(alice, tokens_per_day=0)).status_code == 302
    assert (limits_of(alice).concurrent_runs, limits_of(alice).tokens_per_day) == (50, 0)
    assert changes(alice) == [
        (me, "quota:concurrent_runs", {"before": "default", "after": 3}),
        (me, "quota:concurrent_runs", {"before": 3, "after": 4}),
        (me, "quota:tokens_per_day", {"before": "default", "after": 0}),
        (me, "quota:concurrent_runs", {"before": 4, "after": "default"}),
    ]
    with operator():
        assert list(audit.verify(alice.organization.pk)) == []


def test_what_is_saved_as_it_was_is_no_change(root: User, client: Client, alice: Person) -> None:
    assert client.post(address(alice.organization), form(alice)).status_code == 302
    with operator():
        assert not Quota.objects.exists()
    assert changes(alice) == []


@pytest.mark.parametrize(
    "limits",
    [
        {"storage_bytes": -1},
        {"storage_bytes": 2**53 + 1},
        {"concurrent_runs": 2**31},
        {"requests_per_minute": 0},
        {"tokens_per_day": "many"},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(
    root: User, client: Client, alice: Person, limits: dict[str, Any]
) -> None:
    page = client.post(address(alice.organization), form(alice, **limits))
    assert page.status_code == 200
    assert list(page.context["inline_admin_formsets"][1].formset.forms[0].errors) == list(limits)
    assert limits_of(alice) == DEFAULTS
    assert changes(alice) == []


def test_the_page_shows_what_is_used_and_the_defaults(root: User, client: Client, alice: Person) -> None:
    with tenant(alice.principal):
        reserve(alice.organization.pk, UsageKind.TOKENS, 1_234_567, key="a")
    page = client.get(address(alice.organization)).content.decode()
    assert "0\xa0bytes, 0 runs queued or running, 0 minutes of training this month, 1,234,567 tokens today" in page
    assert 'placeholder="107,374,182,400"' in page and 'placeholder="5,000,000"' in page


def test_an_organization_can_be_made_with_limits_of_its_own(root: User, client: Client, alice: Person) -> None:
    asked = {**form(alice, storage_bytes=9), "name": "New", "slug": "new", "quota-0-organization": ""}
    assert client.post(reverse("admin:accounts_organization_add"), asked).status_code == 302
    with operator():
        made = Organization.objects.get(slug="new")
        assert quota_of(made.pk).storage_bytes == 9
    assert limits_of(alice) == DEFAULTS


def test_staff_who_may_change_organizations_change_no_quotas_by_that(client: Client, alice: Person) -> None:
    clerk = User.objects.create_user("clerk@example.com", PASSWORD, is_staff=True)
    clerk.user_permissions.set(Permission.objects.filter(codename__in=["view_organization", "change_organization"]))
    client.force_login(clerk)
    asked = {**form(alice, storage_bytes=9), "name": "Renamed"}
    assert client.post(address(alice.organization), asked).status_code == 302
    with operator():
        assert Organization.objects.get(pk=alice.organization.pk).name == "Renamed"
        assert not Quota.objects.exists()
    assert changes(alice) == []
