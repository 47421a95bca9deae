"""Two versions side by side through the API: counts, first rows, steps, and what cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.models import Role
from common.tenancy import operator
from datasets import comparing
from datasets.models import DatasetVersion
from datasets.tasks import work
from tests.cast import Person, make_person
from tests.datasets.test_append_api import DELETE, NEW, OLD, append, made, upload, versions
from tests.rows import global_id, make_version

pytestmark = pytest.mark.django_db(transaction=True)

DIFF = """query ($a: ID!, $b: ID!, $examples: Int! = 3) { datasetVersionDiff(a: $a, b: $b, examples: $examples) {
  a { number } b { number }
  rowsSame rowsMoved rowsAdded rowsRemoved rowsChanged promptsCompared
  added { prompt line uploadSha256 } removed { prompt } changed { before { prompt completion } after { prompt completion } }
  steps { name before { rowsIn rowsDropped } after { rowsIn rowsDropped reasons { key count } } } } }"""
COUNTS = ("rowsSame", "rowsMoved", "rowsAdded", "rowsRemoved", "rowsChanged")


def diff(person: Person, a: DatasetVersion, b: DatasetVersion, **arguments: Any) -> Any:
    return person.data(DIFF, a=global_id(a), b=global_id(b), **arguments)["datasetVersionDiff"]


def refused(person: Person, a: DatasetVersion, b: DatasetVersion, **arguments: Any) -> Any:
    answer = person.ask(DIFF, a=global_id(a), b=global_id(b), **arguments)
    assert answer["data"] == {"datasetVersionDiff": None}
    return [error["extensions"]["code"] for error in answer["errors"]]


def counts(found: dict[str, Any]) -> tuple[int, ...]:
    return tuple(found[name] for name in COUNTS)


def test_versions_of_one_and_of_two_datasets_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    ada = make_person("Ada")
    dataset, one = made(ada)
    sent = upload(ada, [*NEW, OLD[0]])
    append(ada, dataset, sent)
    work()
    two = versions(dataset)[1]
    found = diff(ada, one, two, examples=2)
    assert (found["a"], found["b"]) == ({"number": 1}, {"number": 2})
    assert counts(found) == (40, 0, 15, 0, 0)
    assert len(found["added"]) == 2
    assert all(
        row["prompt"] == NEW[row["line"] - 1]["prompt"] and row["uploadSha256"] == sent.sha256 for row in found["added"]
    )
    steps = {step["name"]: step for step in found["steps"]}
    assert list(steps) == ["parse", "clean", "validate", "dedup_exact", "dedup_near", "split", "pii", "bias", "store"]
    assert steps["dedup_exact"] == {
        "name": "dedup_exact",
        "before": {"rowsIn": 40, "rowsDropped": 0},
        "after": {"rowsIn": 56, "rowsDropped": 1, "reasons": [{"key": "DUPLICATE", "count": 1}]},
    }
    assert counts(diff(ada, two, one)) == (40, 0, 0, 15, 0)
    better = [OLD[0] | {"completion": "    return x"}, *OLD[1:30]]
    _, other = made(ada, better, name="Other")
    found = diff(ada, one, other)
    assert counts(found) == (29, 0, 0, 10, 1)
    assert found["changed"] == [{"before": OLD[0], "after": better[0]}]
    # files that both have are not looked into: they count for nothing
    monkeypatch.setattr(comparing, "MOST_ROWS", 15)
    assert counts(diff(ada, one, two)) == (40, 0, 15, 0, 0)
    assert refused(ada, one, other) == ["DIFF_TOO_LARGE"]


def test_what_cannot_be_compared_is_refused_with_words() -> None:
    ada, eve = make_person("Ada"), make_person("Eve")
    dataset, one = made(ada)
    assert refused(ada, one, one, examples=21) == ["INVALID"]
    append(ada, dataset, upload(ada, NEW))
    assert refused(ada, one, versions(dataset)[1]) == ["VERSION_NOT_READY"]
    assert refused(ada, make_version(ada), one) == ["VERSION_NOT_READY"]
    _, theirs = made(eve)
    assert diff(ada, one, theirs) is None  # invisible
    assert diff(ada, theirs, one) is None
    both = make_person("Both", ada.organization, Role.MEMBER)
    with operator():
        both.user.memberships.create(organization=eve.organization, role=Role.MEMBER)
    assert refused(both, one, theirs) == ["DIFFERENT_ORGANIZATIONS"]
    gone, last = made(ada, OLD[:9], name="Gone")
    ada.data(DELETE, id=global_id(gone))
    assert refused(ada, last, one) == ["DATASET_DELETED"]
