"""What nobody foresaw is answered with a reference to the log, and with nothing of its words."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from platform_site.execution import ECHO_LIMIT
from tests.cast import Person
from tests.rows import global_id, make_run

CREATE_KEY = 'mutation ($until: DateTime) { createApiKey(input: {organizationId: "x", name: "x", expiresAt: $until}) { __typename } }'
CONFIG = "query ($id: ID!) { trainingRun(id: $id) { name config { epochs } } me { email } }"


def test_a_bug_is_masked_and_found_in_the_log_by_its_reference(alice: Person, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(alice, config={"epochs": "a secret"})  # no action of ours would write this
    with caplog.at_level(logging.ERROR, logger="platform_site.execution"):
        answer = alice.ask(CONFIG, id=global_id(run))
    assert answer["data"] == {"trainingRun": None, "me": {"email": "alice@example.com"}}
    (error,) = answer["errors"]
    reference = error["extensions"].pop("reference")
    assert re.fullmatch("[0-9a-f]{12}", reference)
    assert error == {
        "message": f"Something went wrong on our side; its operators find it as {reference}.",
        "path": ["trainingRun", "config"],
        "extensions": {"code": "INTERNAL"},
    }
    (record,) = [one for one in caplog.records if one.name == "platform_site.execution"]
    assert reference in record.getMessage() and record.exc_info


def test_a_refusal_is_no_error_of_ours(alice: Person, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        answer = alice.ask("{ trainingRuns(first: 101) { totalCount } }")
    assert answer["errors"][0]["extensions"] == {"code": "INVALID", "field": "first"}
    assert caplog.records == []


SIZED = 'mutation {{ startUpload(input: {{fileName: "a", sizeBytes: {}}}) {{ __typename }} }}'
ENDING = 'mutation {{ createApiKey(input: {{organizationId: "x", name: "a", expiresAt: {}}}) {{ __typename }} }}'


@pytest.mark.parametrize(
    ("document", "literals"),
    [
        (SIZED, [str(10**20), '"5"', "1.5", "true", "[5]", "{a: 5}", "X"]),
        (ENDING, ['"9999-12-31T24:00:00Z"', '"tomorrow"', "5", '"2030-01-01T00:00:00+99:99"']),
    ],
)
def test_a_literal_that_is_none_of_its_type_is_the_askers_fault(
    alice: Person, caplog: pytest.LogCaptureFixture, document: str, literals: list[str]
) -> None:
    for literal in literals:
        (error,) = alice.ask(document.format(literal))["errors"]
        assert error.keys() <= {"message", "locations"}, literal
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


LONG = "x" * 90_000


@pytest.mark.parametrize(
    ("document", "variables"),
    [
        (f"{{ {LONG} }}", {}),
        (f"{{ me {{ email }} }} {LONG}", {}),
        (f'{{ trainingRuns(status: "{LONG}") {{ totalCount }} }}', {}),
        (CREATE_KEY, {"until": LONG}),
        ("query ($of: [JobStatus!]) { trainingRuns(status: $of) { totalCount } }", {"of": [LONG]}),
        ("{ ...F } fragment F" + LONG + " on Query { me { id } }", {}),
    ],
    ids=["a field", "no operation", "a literal", "a time", "a value", "a name"],
)
def test_an_error_quotes_little_of_what_was_sent(alice: Person, document: str, variables: dict[str, Any]) -> None:
    errors = alice.ask(document, **variables)["errors"]
    assert max(len(error["message"]) for error in errors) == ECHO_LIMIT
