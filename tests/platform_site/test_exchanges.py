"""What a request asks of the database, in exchanges with it: each costs a wait, and a turn of two processes."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.cast import Person
from tests.rows import global_id, make_run, make_version

pytestmark = pytest.mark.django_db(transaction=True)


def exchanges(person: Person, document: str, **variables: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        person.data(document, **variables)
    return len(captured)


def test_an_object_takes_two_for_who_asks_and_for_the_object(alice: Person) -> None:
    run = make_run(alice)
    document = "query ($id: ID!) { trainingRun(id: $id) { name datasetVersion { number dataset { name } } } }"
    assert exchanges(alice, document, id=global_id(run)) == 2


def test_what_needs_no_row_takes_one(alice: Person) -> None:
    assert exchanges(alice, "{ __typename }") == 1


def test_a_run_is_started_in_nineteen(alice: Person) -> None:
    """One more for each look at the quota, and four for each transition, would be missed by nobody but by whoever waits."""
    version = make_version(alice)
    document = """mutation ($id: ID!) { startTrainingRun(input: {datasetVersionId: $id}) {
        ... on TrainingRun { id status events { sequence } }
    } }"""
    assert exchanges(alice, document, id=global_id(version)) == 19 + 1  # and its events, which are asked for
