"""What a request may ask for: costly documents are refused before they are validated, in little time, whichever way they come."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.conf import settings
from graphql import get_introspection_query, parse

from accounts.models import Membership, User
from common.errors import Invalid
from common.graphql import Context
from common.tenancy import Principal, operator
from inference.actions import MAX_BATCH
from platform_site import execution, graphql
from platform_site.limits.allowed import Allowed
from platform_site.limits.cost import refuse_costly
from platform_site.limits.documents import ALLOWED
from platform_site.schema import schema
from tests.cast import Person, make_person
from tests.platform_site.hostile import HOSTILE, WRONG, numbered
from tests.web import serving
from training.curves import CURVES

# on a busy machine, where it may be ten times what `python -m benchmarks hostile` allows: what grows without end is told
CPU_BOUND_S = 0.5


def execute(document: str, **variables: Any) -> Any:
    """As somebody who is signed in, without a database: nothing that is refused may come to ask for one."""
    context = Context(principal=Principal(user_id=uuid4()), request=object())  # type: ignore[arg-type]
    return schema.execute_sync(document, variables, context_value=context)


@pytest.mark.parametrize(("document", "code"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_document_is_refused_in_little_time(document: str, code: str) -> None:
    started = time.process_time()
    answer = execute(document)
    took_s = time.process_time() - started
    assert answer.data is None
    assert [error.extensions["code"] for error in answer.errors] == [code]
    assert took_s < CPU_BOUND_S


@pytest.mark.parametrize(("document", "variables"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_what_is_within_the_limits_and_wrong_is_refused_in_little_time_too(
    document: str, variables: dict[str, Any]
) -> None:
    started = time.process_time()
    answer = execute(document, **variables)
    took_s = time.process_time() - started
    assert answer.data is None and answer.errors
    assert took_s < CPU_BOUND_S


NESTED = """query ($n: Int, $m: Int = 100) {
  datasets(first: $n) { edges { node { versions(first: $m) { edges { node { rejections(first: 100) { edges { node { line } } } } } } } } }
}"""
EVENTS = """
  ... on StatusChanged { status } ...Logged
  ... on JobEvent { ... on StatusChanged { reason } }
  """
LOGGED = "fragment Logged on StepLogged { step loss } "
LATEST = "{ datasets(first: %s) { totalCount edges { node { id latestVersion { id } } } } }"


@pytest.mark.parametrize(
    ("document", "variables", "found"),
    [
        # 1 + 100 (edge, node, connection 1 + 100 (edge, node, connection 1 + 100 (edge, node, line)))
        (NESTED, {"n": 100}, 3_030_301),
        (NESTED, {}, 3_030_301),
        (NESTED, {"n": None}, 3_030_301),
        (NESTED, {"n": 10**9}, 3_030_301),
        (NESTED, {"n": "x"}, 3_030_301),
        (NESTED, {"n": 2}, 60_607),
        (NESTED, {"n": 100, "m": 2}, 60_901),
        # a fragment is measured once, for whatever page it stands in
        (
            "{ datasets { ...A } } fragment A on DatasetConnection { edges { node { versions { ...B } } } } "
            "fragment B on DatasetVersionConnection { edges { node { events(first: 5000) { sequence } } } }",
            {},
            None,
        ),
    ],
)
def test_pages_multiply(document: str, variables: dict[str, Any], found: int | None) -> None:
    (error,) = execute(document, **variables).errors
    assert error.extensions == {"code": "TOO_COMPLEX"}
    if found is not None:
        assert error.message == f"This asks for {found:,} fields in the answer, and 50,000 are allowed."


@pytest.mark.parametrize(
    ("document", "cost"),
    [
        ("{ me { email } }", 2),
        (LATEST % 10, 1 + 1 + 10 * (1 + 1 + 1 + 2)),
        (LATEST % 101, 1 + 1 + 100 * (1 + 1 + 1 + 2)),
        ("{ datasets(last: 3) { edges { cursor } } }", 1 + 3 * 2),
        ("{ me { memberships { role organization { id } } } }", 1 + 1 + 10 * 3),
        # an event is of one type: the one with the most fields counts
        (f'{{ trainingRun(id: "x") {{ events(first: 5000) {{ sequence {EVENTS} }} }} }} {LOGGED}', 1 + 1 + 5_000 * 3),
        ("{ x(first: 9) { edges { nothing } } }", 3),
        ('{ datasetVersion(id: "x") { preview { text } } }', 1 + 1 + 20),
        ('{ datasetVersion(id: "x") { events(first: 9999) { sequence at } } }', 1 + 1 + 5_000 * 2),
        ('{ trainingRun(id: "x") { metrics { steps } } }', 1 + 1 + 10 + 6 * 500),
        ('{ trainingRun(id: "x") { metrics(names: ["loss"], maxPoints: 8000) { steps } } }', 1 + 1 + 10 + 800),
        (
            '{ trainingRun(id: "x") { metrics(names: ["loss", "evalLoss"], maxPoints: 4) { steps } } }',
            1 + 1 + 10 + 2 * 500,
        ),
        (
            '{ trainingRuns(first: 9) { edges { node { metrics(names: ["loss"]) { steps } } } } }',
            1 + 9 * (2 + 1 + 10 + 500),
        ),
    ],
)
def test_the_cost_is_the_number_of_fields_in_a_full_answer(document: str, cost: int) -> None:
    refuse_costly(schema._schema, parse(document), {}, Allowed(cost=cost))
    with pytest.raises(Invalid) as refused:
        refuse_costly(schema._schema, parse(document), {}, Allowed(cost=cost - 1))
    assert refused.value.code == "TOO_COMPLEX"
    assert f"{cost:,} fields" in refused.value.message


@pytest.mark.parametrize(
    ("given", "cost"),
    [
        ({}, 6 * 500),
        ({"names": ["loss"] * 2}, 2 * 500),
        ({"names": ["loss"] * 90, "most": 6_000}, 6 * 600),
        ({"names": [], "most": 6_000}, 0),
        ({"names": None, "most": None}, 6 * 500),
    ],
)
def test_curves_cost_what_their_variables_say(given: dict[str, Any], cost: int) -> None:
    document = parse(
        "query ($names: [String!], $most: Int) { trainingRun { metrics(names: $names, maxPoints: $most) } }"
    )
    refuse_costly(schema._schema, document, given, Allowed(cost=2 + cost))
    with pytest.raises(Invalid):
        refuse_costly(schema._schema, document, given, Allowed(cost=1 + cost))


ANSWERS = "answer: predictBatch(input: %s) { ... on PredictionBatch { results { ... on Prediction { id text } ...Refused } } }"
REFUSED = "fragment Refused on OperationInfo { messages { code } }"  # 11 fields: more than a prediction's two here


@pytest.mark.parametrize(
    ("given", "variables", "requests"),
    [
        ('{requests: [{prompt: "a"}, {prompt: "b"}, {prompt: "c"}]}', {}, 3),
        ("$input", {"input": {"requests": [{"prompt": "x"}] * 5}}, 5),
        ("{requests: $each}", {"each": [{"prompt": "x"}] * 7}, 7),
        ("$input", {"input": {"requests": []}}, 0),
        # what nobody can tell, and what is refused later, counts as the most
        ("$input", {"input": {"requests": [{}] * 900}}, 64),
        ("$input", {"input": {"requests": {"prompt": "x"}}}, 64),
        ("$input", {"input": {"requests": "x"}}, 64),
        ("$input", {"input": 7}, 64),
        ("$input", {}, 64),
        ('{requests: {prompt: "a"}}', {}, 64),
        ("{}", {}, 64),
        ("7", {}, 64),
    ],
)
def test_a_batch_costs_what_its_requests_do(given: str, variables: dict[str, Any], requests: int) -> None:
    """500 each, and what is asked of each answer."""
    document = parse(
        f"mutation ($input: PredictBatchInput!, $each: [PredictInput!]!) {{ {ANSWERS % given} }} {REFUSED}"
    )
    cost = 1 + requests * (500 + 1 + 11)
    refuse_costly(schema._schema, document, variables, Allowed(cost=max(cost, 12)))
    with pytest.raises(Invalid) as refused:
        refuse_costly(schema._schema, document, variables, Allowed(cost=cost - 1))
    assert refused.value.code == "TOO_COMPLEX"


def test_one_batch_may_be_asked_for_and_a_second_one_not(alice: Person) -> None:
    def ask(*sizes: int) -> Any:
        batches = " ".join(
            f"a{place}: {ANSWERS % f'$of{place}'}".replace("answer: ", "") for place in range(len(sizes))
        )
        declared = ", ".join(f"$of{place}: PredictBatchInput!" for place in range(len(sizes)))
        given = {
            f"of{place}": {"requests": [{"prompt": "x", "adapterId": "x"}] * size} for place, size in enumerate(sizes)
        }
        return alice.ask(f"mutation ({declared}) {{ {batches} }} {REFUSED}", **given)

    assert len(ask(64)["data"]["a0"]["results"]) == 64
    assert [len(each["results"]) for each in ask(64, 20)["data"].values()] == [64, 20]
    refused = ask(64, 64)
    assert (refused["data"], refused["errors"][0]["extensions"]) == (None, {"code": "TOO_COMPLEX"})
    assert len(ask(1)["data"]["a0"]["results"]) == 1, "a small one is not taken for the large one before it"


@pytest.mark.parametrize(
    "document",
    [
        "mutation ($input: PredictInput!) { predict(input: $input) { ... on Prediction { id text } } }",
        "subscription ($input: PredictInput!) { generate(input: $input) { sequence text } }",
    ],
)
def test_a_prediction_costs_as_much_as_one_of_a_batch(document: str) -> None:
    refuse_costly(schema._schema, parse(document), {}, Allowed(cost=503))
    with pytest.raises(Invalid):
        refuse_costly(schema._schema, parse(document), {}, Allowed(cost=502))


def test_no_more_curves_are_said_to_be_a_runs_than_there_are() -> None:
    assert ALLOWED.curves == len(CURVES)


def test_a_full_batch_is_what_the_action_takes_for_one() -> None:
    assert ALLOWED.batch == MAX_BATCH


def test_each_limit_names_itself_and_what_was_found() -> None:
    aliased = f"{{ {numbered(20, 'a#: __typename')} me {{ {numbered(31, 'b#: id')} }} }}"
    (error,) = execute(aliased).errors
    assert (error.message, error.extensions) == (
        "This asks for 51 aliases, and 50 are allowed.",
        {"code": "TOO_MANY_ALIASES"},
    )
    (error,) = execute("query ($s: [ID!]) { __typename }", s=[["x"] * 100] * 100).errors
    assert error.extensions == {"code": "TOO_MANY_VALUES"}


def test_100_aliased_logins_are_none_and_eleven_mutations_are_too_many(alice: Person) -> None:
    login = 'login(input: {email: "alice@example.com", password: "a long enough password"}) { ... on Session { accessToken } }'
    for count, code in ((100, "TOO_MANY_ALIASES"), (11, "TOO_MANY_ROOT_FIELDS")):
        answer = alice.ask(f"mutation {{ {numbered(count, f'a#: {login}')} }}")
        assert (answer["data"], answer["errors"][0]["extensions"]) == (None, {"code": code})
    assert alice.ask(f"{{ {numbered(21, 'a#: __typename')} }}")["errors"][0]["extensions"] == {
        "code": "TOO_MANY_ROOT_FIELDS"
    }


def examples() -> list[str]:
    """Every operation that our pages and documents show."""
    base = Path(settings.BASE_DIR)
    graphiql = (base / "platform_site" / "static" / "graphiql" / "examples.graphql").read_text()
    blocks = re.findall(r"```graphql\n(.*?)```", (base / "docs" / "api.md").read_text(), re.DOTALL)
    assert len(blocks) > 5
    return [graphiql, *blocks]


def test_what_clients_ask_is_well_within_the_limits(alice: Person) -> None:
    whole = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    assert len(alice.data(whole)["__schema"]["types"]) > 50
    for document in [whole, *examples()]:
        refuse_costly(schema._schema, parse(document), {}, Allowed(cost=5_000, depth=18, aliases=5, repeats=10))
    dashboard = "totalCount edges { node { id name status step totalSteps loss createdAt } }"
    runs = " ".join(
        f"{status.lower()}: trainingRuns(first: 50, status: [{status}]) {{ {dashboard} }}" for status in STATUSES
    )
    refuse_costly(schema._schema, parse(f"{{ {runs} }}"), {}, ALLOWED)


STATUSES = ("QUEUED", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")


def test_an_answer_that_is_too_large_is_refused_and_says_so(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphql, "ALLOWED", Allowed(answer_bytes=50))
    assert alice.ask("{ __typename }") == {"data": {"__typename": "Query"}}
    (error,) = alice.ask("{ me { email id memberships { role } } }")["errors"]
    assert error == {
        "message": "The answer is over 16 MB: ask for fewer items or fields. What mutations have done stays done.",
        "extensions": {"code": "ANSWER_TOO_LARGE"},
    }


def test_lists_of_any_length_inside_each_other_are_given_up(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cost takes a list that cannot be told how many for ten."""
    monkeypatch.setattr(execution, "ALLOWED", Allowed(answer_fields=5_000))
    with operator():
        people = User.objects.bulk_create([User(email=f"{n}@example.com") for n in range(60)])
        Membership.objects.bulk_create(Membership(organization=alice.organization, user=user) for user in people)
    members = "members { role user { email } }"
    answer = alice.data(f"{{ organizations {{ {members} }} }}")
    assert len(answer["organizations"][0]["members"]) == 61
    document = f"{{ organizations {{ members {{ user {{ memberships {{ organization {{ {members} }} }} }} }} }} }}"
    assert alice.ask(document) == {
        "data": None,
        "errors": [
            {
                "message": "The answer has over 100,000 fields: ask for fewer items or fields. "
                "What mutations have done stays done.",
                "extensions": {"code": "ANSWER_TOO_LARGE"},
            }
        ],
    }


@pytest.mark.django_db(transaction=True)
def test_a_stream_is_held_to_them_too() -> None:
    ada = make_person("Ada")
    headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {ada.token}"}
    with serving() as url:
        for document, code in (
            (f'subscription {{ trainingRunEvents(id: "x") {{ {numbered(51, "a#: sequence")} }} }}', "TOO_MANY_ALIASES"),
            ("subscription { x " + "y " * 3_000 + "}", "TOO_LONG"),
        ):
            answer = httpx.post(f"{url}/graphql/stream", json={"query": document}, headers=headers, trust_env=False)
            (data,) = re.findall(r"event: next\r\ndata: (.*)\r\n", answer.text)
            assert [error["extensions"] for error in json.loads(data)["errors"]] == [{"code": code}]


def test_a_document_that_was_let_in_is_weighed_again_for_larger_pages(bob: Person) -> None:
    document = """query ($many: Int, $few: Int, $after: String) { datasets(first: $many, after: $after) { edges { node {
        versions(first: $few) { edges { node { id number status } } } } } } }"""
    for sizes, codes in [
        ({"many": 2, "few": 2}, []),
        ({"many": 100, "few": 100}, ["TOO_COMPLEX"]),
        ({"many": 2, "few": 2, "after": None}, []),
        ({"many": 100, "few": 100}, ["TOO_COMPLEX"]),
        ({"many": 2}, []),
        ({}, ["TOO_COMPLEX"]),
    ]:
        errors = bob.ask(document, **sizes).get("errors", [])
        assert [error["extensions"]["code"] for error in errors] == codes, sizes
