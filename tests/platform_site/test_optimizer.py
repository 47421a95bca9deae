"""What is kept of a document is what would be worked out anew: the same SQL, for whoever asks."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from graphql import FieldNode, OperationType, parse

from accounts.models import Role
from platform_site import optimizer
from platform_site.optimizer import VARIES, Known, Needs, Place
from tests.cast import Person, make_person
from tests.rows import global_id, make_adapter, make_run, make_version
from training.models import Adapter, TrainingRun

QUERY = OperationType.QUERY
VERSION = "datasetVersion { number dataset { name } }"
PLAIN = {
    "one": f"query ($id: ID!) {{ trainingRun(id: $id) {{ name createdBy {{ email }} {VERSION} adapter {{ name }} }} }}",
    "list": f"query ($id: ID!) {{ trainingRuns(first: 3) {{ edges {{ node {{ name status {VERSION} }} }} }} node(id: $id) {{ id }} }}",
    "columns only": "query ($id: ID!) { trainingRun(id: $id) { status step } }",
    "fragments": f"""query ($id: ID!) {{ trainingRun(id: $id) {{ ...Run }} }}
        fragment Run on TrainingRun {{ status ...Data }} fragment Data on TrainingRun {{ {VERSION} }}""",
}
VARYING = {
    "directive": """query ($id: ID!, $all: Boolean!) {
        trainingRun(id: $id) { name datasetVersion @include(if: $all) { number dataset { name } } } }""",
    "in a fragment": f"""query ($id: ID!, $all: Boolean!) {{ trainingRun(id: $id) {{ ...Run }} }}
        fragment Run on TrainingRun {{ name ... @include(if: $all) {{ {VERSION} }} }}""",
}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> Known:
    """Nothing yet, whichever tests ran before."""
    fresh = Known()
    monkeypatch.setattr(optimizer, "KNOWN", fresh)
    return fresh


def asked(person: Person, document: str, **variables: Any) -> tuple[Any, list[str]]:
    """The answer, and what was read for it, each in its scope, once it was clear who asks."""
    with CaptureQueriesContext(connection) as captured:
        answer = person.data(document, **variables)
    return answer, [query["sql"] for query in captured if ';SELECT "' in query["sql"]]


@pytest.mark.parametrize("document", PLAIN.values(), ids=PLAIN)
def test_the_second_request_with_a_document_takes_the_sql_of_the_first(
    bob: Person, known: Known, document: str
) -> None:
    run = make_run(bob, make_version(bob))
    make_adapter(bob, run)
    first = asked(bob, document, id=global_id(run))
    assert [type(needs) for needs in known] == [Needs]
    assert asked(bob, document, id=global_id(run)) == first
    assert len(known) == 1


@pytest.mark.parametrize("document", VARYING.values(), ids=VARYING)
def test_a_selection_that_depends_on_a_variable_is_worked_out_each_time(
    bob: Person, known: Known, document: str
) -> None:
    run = make_run(bob, make_version(bob))
    without, fewer = asked(bob, document, id=global_id(run), all=False)
    whole, more = asked(bob, document, id=global_id(run), all=True)
    assert without["trainingRun"] == {"name": run.name}
    assert whole["trainingRun"] == {"name": run.name, "datasetVersion": {"number": 1, "dataset": {"name": "Snippets"}}}
    assert ['"datasets_dataset"' in sql for sql in (*fewer, *more)] == [False, True]  # one statement for each
    assert list(known) == [VARIES]


def test_what_is_known_of_a_document_says_nothing_of_who_asks(alice: Person, charlie: Person) -> None:
    document = PLAIN["one"].replace("name", "label: name", 1)
    mine, theirs = make_run(alice, make_version(alice)), make_run(charlie, make_version(charlie))
    for person, run, other in ((alice, mine, theirs), (charlie, theirs, mine)):
        answer = person.data(document, id=global_id(run))["trainingRun"]
        assert (answer["label"], answer["createdBy"]["email"]) == (run.name, person.user.email)
        assert person.data(document, id=global_id(other))["trainingRun"] is None


MEMBERS = "fragment Team on Organization { members { role user { email } } }"
ALONE = "organization(id: $id) { ...Team }"
INSIDE = "me { memberships { organization { ...Team } } }"


@pytest.mark.parametrize("selections", [(INSIDE, ALONE), (ALONE, INSIDE)], ids=["inside first", "alone first"])
def test_a_fragment_that_is_prefetched_in_one_place_is_joined_in_the_other(
    alice: Person, bob: Person, selections: tuple[str, str]
) -> None:
    document = f"query ($id: ID!) {{ {' '.join(selections)} }} {MEMBERS}"
    counts = []
    for name in (None, "Dora", "Emil"):
        if name:
            make_person(name, alice.organization, Role.MEMBER)
        for _ in range(2):
            answer, statements = asked(alice, document, id=global_id(alice.organization))
            counts.append(len(statements))
            (membership,) = answer["me"]["memberships"]
            assert membership["organization"]["members"] == answer["organization"]["members"]
    assert len(answer["organization"]["members"]) == 4
    assert len(set(counts)) == 1


def test_versions_of_each_dataset_are_asked_for_with_their_own_needs(bob: Person, known: Known) -> None:
    for _ in range(2):
        make_version(bob)
    document = "{ datasets(first: 5) { edges { node { name latestVersion { number } versions(first: 2) { edges { node { number } } } } } } }"
    first, again = asked(bob, document), asked(bob, document)
    assert first == again
    assert VARIES in list(known)  # the newest version takes a query of its own


def test_it_is_forgotten_with_the_document() -> None:
    known = Known()
    document = parse("{ run { name } }")
    operation: Any = document.definitions[0]
    node: FieldNode = operation.selection_set.selections[0]
    place = Place(id(node), "Query", TrainingRun, QUERY)
    known.note(place, node, Needs((), ("name",)))
    assert known.at(place) == Needs((), ("name",))
    assert known.at(place._replace(parent="Job")) is None
    assert known.at(place._replace(model=Adapter)) is None
    assert known.at(place._replace(operation=OperationType.MUTATION)) is None
    del document, operation, node
    gc.collect()
    assert len(known) == 0
