"""GET /v1/models costs the same however many adapters there are, and has the newest thousand."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.tenancy import operator
from platform_site.v1.listing import MOST_LISTED, model_of, models_of
from tests.cast import Person
from tests.rows import BASE
from training.models import Adapter


def add(person: Person, first: int, count: int) -> None:
    adapters = [
        Adapter(
            organization=person.organization,
            name="reviews",
            version=version,
            base_model_name=BASE,
            base_model_revision="1",
            digest="d" * 64,
            size_bytes=1,
            storage_prefix="t/x",
            card="# A card",
        )
        for version in range(first, first + count)
    ]
    with operator():
        Adapter.objects.bulk_create(adapters)


def test_a_list_is_one_query_of_ten_and_of_more_than_it_shows(alice: Person, charlie: Person) -> None:
    add(charlie, 1, 1)
    shown, queries = [], []
    for first, count in ((1, 10), (11, MOST_LISTED)):
        add(alice, first, count)
        with CaptureQueriesContext(connection) as captured:
            shown.append([model["id"] for model in models_of(alice.principal)["data"]])
        queries.append([query["sql"] for query in captured if "training_adapter" in query["sql"]])
    assert [len(each) for each in queries] == [1, 1]
    assert all('"card"' not in sql for each in queries for sql in each), "which may be long"
    assert sorted(shown[0]) == sorted([BASE, *(f"reviews:{version}" for version in range(1, 11))])
    assert len(shown[1]) == len(set(shown[1])) == 1 + MOST_LISTED
    assert {f"reviews:{version}" for version in range(1, 11)}.isdisjoint(shown[1]), "the oldest"
    assert model_of(alice.principal, "reviews:1")["id"] == "reviews:1"
