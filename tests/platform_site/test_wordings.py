"""SQL of which a part is kept is the SQL that Django would have worded, and brings the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.db.models import Count, F, Q, QuerySet, Value
from django.db.models.functions import Coalesce

from common.tenancy import tenant
from platform_site.postgresql.compiler import HINT, Wordings
from tests.cast import Person
from tests.rows import make_run, make_version
from training.models import TrainingRun

RELATED = ("created_by", "dataset_version__dataset", "adapter")
COLUMNS = ("name", "created_by__email", "dataset_version__number", "dataset_version__dataset__name", "adapter__name")

Rows = QuerySet[TrainingRun]
KEPT: dict[str, Callable[[Rows], Rows]] = {
    "a key": lambda rows: rows.filter(pk=UUID(int=1)),
    "one organization": lambda rows: rows.filter(organization_id__in=[UUID(int=1)]),
    "three": lambda rows: rows.filter(organization_id__in=[UUID(int=number) for number in range(3)]),
    "either": lambda rows: rows.filter(Q(status="QUEUED") | Q(name="50 %s %")),
    "not": lambda rows: rows.exclude(status="FAILED"),
    "null": lambda rows: rows.filter(finished_at=None),
    "columns": lambda rows: rows.filter(step__lt=F("total_steps")),
    "an order": lambda rows: rows.filter(name="a").order_by("-created_at", "created_by__name"),
    "an order that is worked out": lambda rows: rows.filter(name="a").order_by(F("loss").desc(nulls_last=True)),
    "a slice": lambda rows: rows.filter(name="a")[2:7],
    "fewer columns": lambda rows: rows.filter(name="a").only("name", "created_by__email", "dataset_version", "adapter"),
}
WORDED_EACH_TIME: dict[str, Callable[[Rows], Rows]] = {
    "a condition on another table": lambda rows: rows.filter(dataset_version__number=1),
    "a subquery": lambda rows: rows.filter(pk__in=TrainingRun.objects.filter(name="a").values("pk")),
    "something counted": lambda rows: rows.filter(name="a").annotate(count=Count("event_log")),
    "an order with a value": lambda rows: rows.filter(name="a").order_by(Coalesce("loss", Value(0.5))),
    "no twins": lambda rows: rows.filter(name="a").distinct(),
    "locked": lambda rows: rows.filter(name="a").order_by("pk").select_for_update(of=("self",)),
    "values": lambda rows: rows.filter(name="a").select_related(None).values("name"),
    "all": lambda rows: rows.all(),
    "whatever": lambda rows: rows.filter(~Q(pk__in=[])),
}


def selected() -> Rows:
    return TrainingRun.objects.select_related(*RELATED).only(*COLUMNS)


def hinted(wordings: Wordings) -> Rows:
    rows = selected()
    setattr(rows.query, HINT, wordings)
    return rows


def sql_of(rows: Rows) -> tuple[str, tuple[Any, ...]]:
    compiled: tuple[str, tuple[Any, ...]] = rows.query.get_compiler(connection=connection).as_sql()
    return compiled


@pytest.mark.parametrize("narrowed", KEPT.values(), ids=KEPT)
def test_what_is_kept_is_what_django_words(narrowed: Callable[[Rows], Rows]) -> None:
    wordings = Wordings()
    for _ in range(3):
        assert sql_of(narrowed(hinted(wordings))) == sql_of(narrowed(selected()))
    assert len(wordings) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("narrowed", WORDED_EACH_TIME.values(), ids=WORDED_EACH_TIME)
def test_what_depends_on_more_is_worded_each_time(narrowed: Callable[[Rows], Rows]) -> None:
    wordings = Wordings()
    for _ in range(3):
        assert sql_of(narrowed(hinted(wordings))) == sql_of(narrowed(selected()))
    assert len(wordings) == 0


def test_conditions_are_worded_each_time() -> None:
    """Nothing of the first asker's is left for the second."""
    wordings = Wordings()
    mine, theirs = uuid4(), uuid4()
    for asked in ([mine], [theirs], [mine, theirs]):
        sql, params = sql_of(hinted(wordings).filter(organization_id__in=asked))
        assert params == tuple(asked)
        assert f'"organization_id" IN ({", ".join(["%s"] * len(asked))})' in sql
    assert len(wordings) == 1


def test_an_order_or_slice_has_a_wording_of_its_own_and_there_are_few() -> None:
    wordings = Wordings()
    rows = hinted(wordings).filter(name="a")
    for end in [*range(1, 20), *range(1, 20)]:
        assert sql_of(rows[:end])[0].endswith(f" LIMIT {end}")
    assert len(wordings) == 8


@pytest.mark.django_db
def test_rows_are_the_same_with_all_that_hangs_on_them(alice: Person, charlie: Person) -> None:
    wordings = Wordings()
    for person in (alice, charlie):
        runs = [make_run(person, make_version(person), name=name) for name in "ab"]
        with tenant(person.principal):
            for run in (*runs, *runs):
                found = hinted(wordings).filter(pk=run.pk).order_by("pk").first()
                assert found == run and found is not None
                assert (found.name, found.created_by.email) == (run.name, person.user.email)
                assert found.dataset_version.dataset.name == run.dataset_version.dataset.name
                assert found.get_deferred_fields() == selected().get(pk=run.pk).get_deferred_fields()
            assert not hinted(wordings).filter(pk__in=[]).exists()
            assert list(hinted(wordings).filter(pk__in=[])) == []
    assert len(wordings) == 1
