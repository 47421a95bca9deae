"""What is kept of a document is what would be worked out anew: the same SQL, for whoever asks."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from graphql import FieldNode, parse

from platform_site import optimizer
from platform_site.optimizer import Needs
from tests.cast import Person
from tests.rows import global_id, make_adapter, make_run, make_version

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


def asked(person: Person, document: str, **variables: Any) -> tuple[Any, list[str]]:
    """The answer, and what was read for it once it was clear who asks."""
    with CaptureQueriesContext(connection) as captured:
        answer = person.data(document, **variables)
    return answer, [query["sql"] for query in captured if query["sql"].startswith('SELECT "')]


@pytest.mark.parametrize("document", PLAIN.values(), ids=PLAIN)
def test_the_second_request_with_a_document_takes_the_sql_of_the_first(bob: Person, document: str) -> None:
    run = make_run(bob, make_version(bob))
    make_adapter(bob, run)
    known = len(optimizer._KNOWN)
    first = asked(bob, document, id=global_id(run))
    assert len(optimizer._KNOWN) == known + 1
    assert asked(bob, document, id=global_id(run)) == first
    assert len(optimizer._KNOWN) == known + 1


@pytest.mark.parametrize("document", VARYING.values(), ids=VARYING)
def test_a_selection_that_depends_on_a_variable_is_worked_out_each_time(bob: Person, document: str) -> None:
    run = make_run(bob, make_version(bob))
    without, fewer = asked(bob, document, id=global_id(run), all=False)
    whole, more = asked(bob, document, id=global_id(run), all=True)
    assert without["trainingRun"] == {"name": run.name}
    assert whole["trainingRun"] == {"name": run.name, "datasetVersion": {"number": 1, "dataset": {"name": "Snippets"}}}
    assert ['"datasets_dataset"' in sql for sql in (*fewer, *more)] == [False, True]  # one statement for each


def test_what_is_known_of_a_document_says_nothing_of_who_asks(alice: Person, charlie: Person) -> None:
    document = PLAIN["one"].replace("name", "label: name", 1)
    mine, theirs = make_run(alice, make_version(alice)), make_run(charlie, make_version(charlie))
    for person, run, other in ((alice, mine, theirs), (charlie, theirs, mine)):
        answer = person.data(document, id=global_id(run))["trainingRun"]
        assert (answer["label"], answer["createdBy"]["email"]) == (run.name, person.user.email)
        assert person.data(document, id=global_id(other))["trainingRun"] is None


def test_it_is_forgotten_with_the_document() -> None:
    known = optimizer._ByNode()
    document = parse("{ run { name } }")
    operation: Any = document.definitions[0]
    node: Any = operation.selection_set.selections[0]
    known.note(node, "Query", Needs((), ("name",)))
    assert known.of(node, "Query") == Needs((), ("name",))
    assert known.of(node, "Other") is None
    assert known.of(FieldNode(name=node.name), "Query") is None
    del document, operation, node
    gc.collect()
    assert len(known) == 0
