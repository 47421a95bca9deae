"""The ledger of usage: exactly as much as is allowed, whoever asks at once, and anew with each day and month."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import ProgrammingError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import Membership, Quota, Role, UsageEntry
from accounts.usage import (
    Usage,
    release,
    remove_what_counts_no_more,
    require_left,
    reserve,
    reserve_each,
    settle,
    settle_each_in_sum,
    settle_in_sum,
)
from accounts.usage_kinds import UsageKind
from common.errors import QuotaExceeded
from common.tenancy import operator, tenant
from tests.accounts.ledger import allow, entries, used
from tests.accounts.locks import in_another_thread
from tests.cast import Person, make_person
from tests.rows import global_id

STORAGE, RUNS, TRAINING, TOKENS = UsageKind
LIMITS = {STORAGE: "storage_bytes", RUNS: "concurrent_runs", TOKENS: "tokens_per_day"}
NOTHING = Usage(storage_bytes=0, running_runs=0, training_minutes_this_month=0, tokens_today=0)
ASK = "query ($id: ID!) { organization(id: $id) { usage { storageBytes runningRuns trainingMinutesThisMonth tokensToday } } }"

pytestmark = pytest.mark.django_db


def take(person: Person, kind: UsageKind, amount: int, key: str, **more: Any) -> None:
    with tenant(person.principal):
        reserve(person.organization.pk, kind, amount, key=key, **more)


def refusal_of(person: Person, kind: UsageKind, amount: int, key: str = "one too many") -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as refused:
        take(person, kind, amount, key)
    return refused.value


@pytest.mark.parametrize("kind", LIMITS)
def test_what_is_allowed_is_given_and_no_more(alice: Person, charlie: Person, kind: UsageKind) -> None:
    allow(alice, **{LIMITS[kind]: 10})
    take(alice, kind, 7, "a")
    take(charlie, kind, 7, "a")  # another's is another's
    refusal = refusal_of(alice, kind, 4)
    assert (refusal.quota, refusal.limit, refusal.used) == (LIMITS[kind], 10, 7)
    take(alice, kind, 3, "b")
    assert refusal_of(alice, kind, 1).used == 10
    assert entries(alice) == {(kind, "a"): 7, (kind, "b"): 3}


def test_kinds_do_not_add_up(alice: Person) -> None:
    allow(alice, storage_bytes=5, concurrent_runs=5, tokens_per_day=5)
    for kind in LIMITS:
        take(alice, kind, 5, "a")
    assert used(alice) == Usage(storage_bytes=5, running_runs=5, training_minutes_this_month=0, tokens_today=5)


def test_the_same_key_again_is_the_same_reservation(alice: Person) -> None:
    allow(alice, storage_bytes=10)
    for _ in range(3):
        take(alice, STORAGE, 10, "a")
    assert entries(alice) == {(STORAGE, "a"): 10}


def test_what_is_settled_or_released_makes_room(alice: Person) -> None:
    allow(alice, storage_bytes=10)
    take(alice, STORAGE, 10, "a")
    with tenant(alice.principal):
        for _ in range(2):
            settle(alice.organization.pk, STORAGE, 4, key="a")
    take(alice, STORAGE, 6, "b")
    assert refusal_of(alice, STORAGE, 1).used == 10
    with tenant(alice.principal):
        for _ in range(2):
            release(alice.organization.pk, STORAGE, key="b")
    assert entries(alice) == {(STORAGE, "a"): 4}


def test_facts_are_entered_beyond_any_limit(alice: Person) -> None:
    allow(alice, storage_bytes=10)
    with tenant(alice.principal):
        settle(alice.organization.pk, STORAGE, 25, key="a")
    refusal = refusal_of(alice, STORAGE, 0)
    assert (refusal.limit, refusal.used) == (10, 25)


def test_where_nothing_is_left_what_shows_only_later_does_not_begin(alice: Person) -> None:
    allow(alice, training_minutes_per_month=2)
    with tenant(alice.principal):
        settle(alice.organization.pk, TRAINING, 119, key="a")
        require_left(alice.organization.pk, TRAINING)
        settle(alice.organization.pk, TRAINING, 1, key="b")
        with pytest.raises(QuotaExceeded) as refused:
            require_left(alice.organization.pk, TRAINING)
    refusal = refused.value
    assert (refusal.quota, refusal.limit, refusal.used) == ("training_minutes_per_month", 2, 2)
    assert "may train for 2 minutes a month, and has for 2" in refusal.message
    assert used(alice).training_minutes_this_month == 2


def test_a_limit_of_nothing_allows_nothing(alice: Person) -> None:
    allow(alice, concurrent_runs=0, training_minutes_per_month=0)
    assert refusal_of(alice, RUNS, 1).limit == 0
    with tenant(alice.principal), pytest.raises(QuotaExceeded):
        require_left(alice.organization.pk, TRAINING)


# ------------------------------------------------------------------------------------------------ time


def beginning(of: str) -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT date_trunc(%s, statement_timestamp(), 'UTC')", [of])
        return cursor.fetchone()[0]


def enter_at(person: Person, kind: UsageKind, at: datetime) -> None:
    with operator():
        UsageEntry.objects.filter(organization=person.organization, kind=kind).update(at=at)


def test_a_day_of_tokens_begins_at_midnight(alice: Person) -> None:
    allow(alice, tokens_per_day=10)
    take(alice, TOKENS, 10, "a")
    today = beginning("day")
    enter_at(alice, TOKENS, today)
    assert refusal_of(alice, TOKENS, 1).resets_at == today + timedelta(days=1)
    enter_at(alice, TOKENS, today - timedelta(microseconds=1))
    take(alice, TOKENS, 10, "b")
    assert (used(alice).tokens_today, len(entries(alice))) == (10, 2)


def test_a_month_of_training_begins_on_its_first_day(alice: Person) -> None:
    allow(alice, training_minutes_per_month=1)
    month = beginning("month")
    next_month = (month + timedelta(days=32)).replace(day=1)
    with tenant(alice.principal):
        settle(alice.organization.pk, TRAINING, 60, key="a")
    enter_at(alice, TRAINING, month)
    with tenant(alice.principal), pytest.raises(QuotaExceeded) as refused:
        require_left(alice.organization.pk, TRAINING)
    assert refused.value.resets_at == next_month
    enter_at(alice, TRAINING, month - timedelta(microseconds=1))
    with tenant(alice.principal):
        require_left(alice.organization.pk, TRAINING)
    assert used(alice) == NOTHING


@pytest.mark.parametrize("kind", [STORAGE, RUNS])
def test_what_lasts_counts_for_as_long_as_it_does(alice: Person, kind: UsageKind) -> None:
    allow(alice, **{LIMITS[kind]: 1})
    take(alice, kind, 1, "a")
    enter_at(alice, kind, datetime(2020, 1, 1, tzinfo=UTC))
    assert refusal_of(alice, kind, 1).resets_at is None


def test_a_reservation_that_nobody_settles_lapses(alice: Person) -> None:
    allow(alice, storage_bytes=10)
    take(alice, STORAGE, 10, "a", lapses_at=timezone.now() + timedelta(minutes=1))
    assert refusal_of(alice, STORAGE, 1).used == 10
    with operator():
        UsageEntry.objects.update(lapses_at=F("lapses_at") - timedelta(minutes=2))
    take(alice, STORAGE, 1, "b")
    with tenant(alice.principal):
        settle(alice.organization.pk, STORAGE, 10, key="a")  # it was used after all
    assert used(alice).storage_bytes == 11


def test_what_counts_no_more_is_removed_in_the_end(alice: Person) -> None:
    now = timezone.now()
    rows = [
        ("day of long ago", TOKENS, now - timedelta(days=101), None, False),
        ("month of long ago", TRAINING, now - timedelta(days=101), None, False),
        ("some days ago", TOKENS, now - timedelta(days=99), None, True),
        ("what lasts", STORAGE, now - timedelta(days=500), None, True),
        ("forgotten", STORAGE, now - timedelta(days=5), now - timedelta(hours=25), False),
        ("forgotten just now", STORAGE, now - timedelta(days=5), now - timedelta(hours=23), True),
    ]
    with operator():
        for key, kind, at, lapses_at, _ in rows:
            UsageEntry.objects.create(
                organization=alice.organization, kind=kind, key=key, amount=1, at=at, lapses_at=lapses_at
            )
    assert remove_what_counts_no_more() == 3
    assert set(entries(alice)) == {(kind, key) for key, kind, _, _, stays in rows if stays}


# ------------------------------------------------------------------------------------------------ sums of a day


def test_what_comes_by_the_thousand_is_one_entry_a_day(alice: Person) -> None:
    organization_id, today = alice.organization.pk, beginning("day")
    for number in range(5):
        take(alice, TOKENS, 100, f"p{number}")
    with tenant(alice.principal):
        for number in range(5):
            settle_in_sum(organization_id, TOKENS, number, key=f"p{number}")
            settle_in_sum(organization_id, TOKENS, 50, key=f"p{number}")  # it is settled already
    assert entries(alice) == {(TOKENS, f"day:{today:%Y-%m-%d}"): 10}
    assert used(alice).tokens_today == 10


def test_a_reservation_belongs_to_its_own_day(alice: Person) -> None:
    yesterday = beginning("day") - timedelta(hours=1)
    take(alice, TOKENS, 100, "p")
    enter_at(alice, TOKENS, yesterday)
    with tenant(alice.principal):
        settle_in_sum(alice.organization.pk, TOKENS, 60, key="p")
    assert entries(alice) == {(TOKENS, f"day:{yesterday:%Y-%m-%d}"): 60}
    assert used(alice) == NOTHING


def test_several_are_reserved_in_their_order_each_as_if_alone(alice: Person) -> None:
    allow(alice, tokens_per_day=10)
    take(alice, TOKENS, 2, "known")
    lapses_at = timezone.now() + timedelta(hours=1)
    amounts = {"a": 4, "b": 5, "known": 99, "c": 4, "d": 1}
    with tenant(alice.principal), CaptureQueriesContext(connection) as queries:
        refused = reserve_each(alice.organization.pk, TOKENS, amounts, lapses_at=lapses_at)
    assert {key: (each.limit, each.used, each.quota) for key, each in refused.items()} == {
        "b": (10, 6, "tokens_per_day"),
        "d": (10, 10, "tokens_per_day"),
    }
    assert entries(alice) == {(TOKENS, "known"): 2, (TOKENS, "a"): 4, (TOKENS, "c"): 4}
    with operator():
        assert UsageEntry.objects.filter(lapses_at=lapses_at).count() == 2
        assert reserve_each(alice.organization.pk, TOKENS, {}) == {}
    allow(alice, tokens_per_day=10**6)
    many = {f"many {number}": 1 for number in range(64)}
    with tenant(alice.principal), CaptureQueriesContext(connection) as more:
        assert reserve_each(alice.organization.pk, TOKENS, many) == {}
    assert len(more) <= len(queries) + 1, "as many queries as for one, and the day of a refusal is looked up"


def test_several_are_settled_at_once_each_on_its_day(alice: Person) -> None:
    today, yesterday = beginning("day"), beginning("day") - timedelta(hours=1)
    take(alice, TOKENS, 100, "late")
    enter_at(alice, TOKENS, yesterday)
    for key in ("a", "b", "c"):
        take(alice, TOKENS, 100, key)
    with tenant(alice.principal):
        for _ in range(2):  # once is enough
            settle_each_in_sum(alice.organization.pk, TOKENS, {"a": 3, "late": 7, "b": 4, "unknown": 50})
        settle_each_in_sum(alice.organization.pk, TOKENS, {"c": 0})
        settle_each_in_sum(alice.organization.pk, TOKENS, {})
    assert entries(alice) == {(TOKENS, f"day:{today:%Y-%m-%d}"): 7, (TOKENS, f"day:{yesterday:%Y-%m-%d}"): 7}


# ------------------------------------------------------------------------------------------------ at once


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", LIMITS)
def test_of_two_who_ask_at_once_for_the_last_one_gets_it(kind: UsageKind) -> None:
    ada = make_person("Ada")
    allow(ada, **{LIMITS[kind]: 10})
    take(ada, kind, 4, "a")
    with in_another_thread() as begin:
        with tenant(ada.principal):
            reserve(ada.organization.pk, kind, 6, key="b")
            second = begin(lambda: take(ada, kind, 1, "c"))
        with pytest.raises(QuotaExceeded):
            second.result()
    assert entries(ada) == {(kind, "a"): 4, (kind, "b"): 6}


@pytest.mark.django_db(transaction=True)
def test_who_waits_gets_what_the_other_gave_up() -> None:
    ada = make_person("Ada")
    allow(ada, storage_bytes=10)

    def give_up() -> None:
        with tenant(ada.principal):
            reserve(ada.organization.pk, STORAGE, 10, key="b")
            waiting.append(begin(lambda: take(ada, STORAGE, 10, "c")))
            raise ZeroDivisionError

    waiting: list[Any] = []
    with in_another_thread() as begin:
        with pytest.raises(ZeroDivisionError):
            give_up()
        waiting[0].result()
    assert entries(ada) == {(STORAGE, "c"): 10}


@pytest.mark.django_db(transaction=True)
def test_nobody_waits_for_another_organization_or_another_kind() -> None:
    ada, charlie = make_person("Ada"), make_person("Charlie")
    with tenant(ada.principal):
        reserve(ada.organization.pk, STORAGE, 1, key="a")
        with in_another_thread() as begin, pytest.raises(AssertionError):
            begin(lambda: (take(charlie, STORAGE, 1, "a"), take(ada, RUNS, 1, "a")))  # which does not begin to wait
    assert (entries(ada), entries(charlie)) == ({(STORAGE, "a"): 1, (RUNS, "a"): 1}, {(STORAGE, "a"): 1})


# ------------------------------------------------------------------------------------------------ whose


@pytest.mark.django_db(transaction=True)
def test_the_ledger_of_others_is_neither_seen_nor_written() -> None:
    alice, charlie = make_person("Alice"), make_person("Charlie")
    take(charlie, STORAGE, 7, "a")
    with tenant(alice.principal):
        assert not UsageEntry.objects.exists()
        release(charlie.organization.pk, STORAGE, key="a")
    for write in (
        lambda: settle(charlie.organization.pk, STORAGE, 1, key="a"),
        lambda: reserve(charlie.organization.pk, STORAGE, 1, key="b"),
    ):
        with pytest.raises(ProgrammingError, match="row-level security"), tenant(alice.principal):
            write()
    assert entries(charlie) == {(STORAGE, "a"): 7}


def test_everybody_in_it_sees_what_an_organization_uses_and_nobody_else(
    alice: Person, vera: Person, charlie: Person
) -> None:
    for kind, amount in {STORAGE: 2**40, RUNS: 2, TOKENS: 900}.items():
        take(alice, kind, amount, "a") if kind is not STORAGE else None
    with tenant(alice.principal):
        settle(alice.organization.pk, STORAGE, 2**40, key="a")
        settle(alice.organization.pk, TRAINING, 179, key="a")
    seen = {"storageBytes": 2**40, "runningRuns": 2, "trainingMinutesThisMonth": 2, "tokensToday": 900}
    for person in (alice, vera):
        assert person.data(ASK, id=global_id(alice.organization))["organization"] == {"usage": seen}
    assert charlie.data(ASK, id=global_id(alice.organization))["organization"] is None
    none = dict.fromkeys(seen, 0)
    assert charlie.data(ASK, id=global_id(charlie.organization))["organization"] == {"usage": none}


def test_a_list_of_organizations_costs_as_many_queries_as_one(alice: Person) -> None:
    documents = [
        "{ organizations { name quota { storageBytes concurrentRuns } usage { storageBytes tokensToday } } }",
        "{ me { memberships { organization { name quota { storageBytes } usage { storageBytes } } } } }",
    ]
    counts = []
    for more in (0, 5):
        for number in range(more):
            other = make_person(f"Other{number}")
            with operator():
                Membership.objects.create(organization=other.organization, user=alice.user, role=Role.VIEWER)
                Quota.objects.create(organization=other.organization, storage_bytes=number)
                settle(other.organization.pk, STORAGE, 100 + number, key="a")
        for document in documents:
            with CaptureQueriesContext(connection) as queries:
                answer = alice.data(document)
            counts.append(len([query for query in queries if "SELECT" in query["sql"]]))
    assert counts[:2] == counts[2:]
    listed = [one["organization"] for one in answer["me"]["memberships"]]
    assert sorted((one["quota"]["storageBytes"], one["usage"]["storageBytes"]) for one in listed) == [
        *((number, 100 + number) for number in range(5)),
        (100 * 2**30, 0),
    ]
