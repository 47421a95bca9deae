"""Tokens: reserved before a model is asked, and settled with what it took, however the answer ends."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from accounts.actions import keys
from accounts.models import Membership, Role, UsageEntry
from common.graphql import Context
from common.tenancy import operator, tenant
from platform_site.schema import schema
from tests.accounts.ledger import allow, entries, used
from tests.cast import Person, make_person
from tests.inference.stand_in import PIECES, Model
from tests.rows import global_id, make_adapter
from tests.web import soon
from training.catalogue import SMALL

PREDICT = """mutation ($input: PredictInput!) { answer: predict(input: $input) {
  __typename
  ... on Prediction { text }
  ... on QuotaExceeded { quota code message limit used resetsAt }
  ... on OperationInfo { messages { code field } } } }"""
GENERATE = "subscription ($input: PredictInput!) { generate(input: $input) { sequence text } }"
PROMPT = "def add(a, b):\n"
MOST = len(PROMPT) + 8
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


def predict(person: Person, **fields: Any) -> dict[str, Any]:
    return person.data(PREDICT, input={"prompt": PROMPT, "maxNewTokens": 8, **fields})["answer"]


def tokens(person: Person) -> int:
    return used(person).tokens_today


def reserved(person: Person) -> list[int]:
    return [amount for (_, key), amount in entries(person).items() if key.startswith("prediction:")]


def test_what_a_prediction_took_is_entered_in_the_days_sum(model: Model, ada: Person) -> None:
    for number in (1, 2, 3):
        assert predict(ada)["text"] == "ab"
        assert (tokens(ada), len(entries(ada))) == (7 * number, 1)
    assert reserved(ada) == []


def test_a_prediction_that_may_take_more_than_is_left_is_refused_and_nobody_is_asked(model: Model, ada: Person) -> None:
    allow(ada, tokens_per_day=MOST + 7)
    assert predict(ada)["__typename"] == "Prediction"
    assert predict(ada)["__typename"] == "Prediction"
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '1 day', 'YYYY-MM-DD')")
        tomorrow = cursor.fetchone()[0]
    assert predict(ada) == {
        "__typename": "QuotaExceeded",
        "quota": "tokensPerDay",
        "code": "QUOTA_EXCEEDED",
        "message": f"Your organization may use {MOST + 7} tokens a day, and has used or reserved 14. "
        "Ask for fewer, or go on tomorrow (UTC).",
        "limit": MOST + 7,
        "used": 14,
        "resetsAt": f"{tomorrow}T00:00:00+00:00",
    }
    assert (model.asked, tokens(ada)) == (2, 14)
    assert predict(ada, maxNewTokens=1)["__typename"] == "Prediction"  # fewer fit


def test_the_prompts_bytes_count_as_its_tokens_until_the_answer_is_here(model: Model, ada: Person) -> None:
    model.may_go_on.clear()
    with ThreadPoolExecutor(1) as client:

        def ask() -> dict[str, Any]:
            try:
                return predict(replace(ada, client=Client()), prompt="größer →", maxNewTokens=20)
            finally:
                connection.close()

        asked = client.submit(ask)
        assert soon(lambda: model.asked == 1)
        assert reserved(ada) == [len("größer →".encode()) + 20] == [32]
        assert tokens(ada) == 32
        model.may_go_on.set()
        assert asked.result()["text"] == "ab"
    assert (tokens(ada), reserved(ada)) == (7, [])


def test_no_more_is_reserved_than_the_model_can_hold(model: Model, ada: Person) -> None:
    allow(ada, tokens_per_day=SMALL.context_tokens)
    assert predict(ada, prompt="x" * 100_000)["__typename"] == "Prediction"
    allow(ada, tokens_per_day=SMALL.context_tokens + 6)
    assert predict(ada, maxNewTokens=2**31 - 1)["__typename"] == "QuotaExceeded"
    allow(ada, tokens_per_day=SMALL.context_tokens + 7)
    assert predict(ada, maxNewTokens=2**31 - 1)["__typename"] == "Prediction"


def test_of_two_at_once_one_gets_what_is_left(model: Model, ada: Person) -> None:
    allow(ada, tokens_per_day=2 * MOST - 1)
    model.may_go_on.clear()

    def ask() -> str:
        try:
            return predict(replace(ada, client=Client()))["__typename"]
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as clients:
        both = [clients.submit(ask) for _ in range(2)]
        assert soon(lambda: any(one.done() for one in both))
        model.may_go_on.set()
        assert sorted(one.result() for one in both) == ["Prediction", "QuotaExceeded"]
    assert tokens(ada) == 7


@pytest.mark.parametrize(
    "refusal",
    [
        (400, {"code": "INVALID", "message": "No.", "field": "top_p"}),
        (503, {"code": "QUEUE_FULL", "message": "Full.", "retry_after_s": 2}),
        (500, {"code": "NUMERICS", "message": "Not finite."}),
        (502, {}),
    ],
    ids=["invalid", "busy", "broken", "no answer of ours"],
)
def test_a_prediction_that_was_refused_takes_nothing(model: Model, ada: Person, refusal: tuple[int, Any]) -> None:
    model.status, model.events = refusal[0], [refusal[1]]
    answer = ada.ask(PREDICT, input={"prompt": PROMPT})
    assert "errors" in answer or answer["data"]["answer"]["__typename"] == "OperationInfo"
    assert model.asked == 1
    assert (tokens(ada), reserved(ada)) == (0, [])


def test_a_server_that_is_away_takes_nothing(model: Model, ada: Person, settings: Any) -> None:
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    assert predict(ada)["messages"][0]["code"] == "INFERENCE_UNAVAILABLE"
    assert (tokens(ada), reserved(ada)) == (0, [])


def test_an_answer_that_breaks_off_takes_what_came_of_it(model: Model, ada: Person) -> None:
    model.events = PIECES[:1]
    assert predict(ada)["messages"][0]["code"] == "INFERENCE_UNAVAILABLE"
    assert (tokens(ada), reserved(ada)) == (5, [])


# ------------------------------------------------------------------------------------------------ who pays


def test_a_key_uses_its_organizations_tokens(model: Model, ada: Person) -> None:
    with tenant(ada.principal):
        issued = keys.create_key(
            actor=ada.principal, organization=ada.organization, name="CI", role=Role.MEMBER, expires_at=None
        )
    program = replace(ada, token=issued.secret)
    allow(ada, tokens_per_day=MOST)
    assert predict(program)["__typename"] == "Prediction"
    assert tokens(ada) == 7
    assert predict(program)["__typename"] == predict(ada)["__typename"] == "QuotaExceeded"


def test_an_adapters_organization_pays_for_it(model: Model, ada: Person) -> None:
    charlie = make_person("Charlie")
    with operator():
        Membership.objects.create(organization=charlie.organization, user=ada.user, role=Role.MEMBER)
    adapter = make_adapter(charlie)
    allow(ada, tokens_per_day=0)
    assert predict(ada, adapterId=global_id(adapter))["__typename"] == "Prediction"
    assert (tokens(ada), tokens(charlie)) == (0, 7)


def test_who_may_not_ask_reserves_nothing(model: Model, ada: Person) -> None:
    vera = make_person("Vera", ada.organization, Role.VIEWER)
    assert predict(vera)["messages"][0]["code"] == "NOT_ALLOWED"
    assert (model.asked, entries(ada)) == (0, {})


# ------------------------------------------------------------------------------------------------ streams


def generate(person: Person, pieces: int | None = None) -> list[Any]:
    """The first pieces of a stream that is given up then, or all of it, or what was wrong."""

    async def run() -> list[Any]:
        heard: list[Any] = []
        results: Any = await schema.subscribe(
            GENERATE,
            variable_values={"input": {"prompt": PROMPT, "maxNewTokens": 8}},
            context_value=Context(principal=person.principal),
        )
        async with aclosing(results):
            async for result in results:
                heard.append(result.errors[0].extensions if result.errors else result.data["generate"]["text"])
                if len(heard) == pieces:
                    break
        return heard

    return asyncio.run(run())


def test_a_stream_takes_what_it_came_to(model: Model, ada: Person) -> None:
    assert generate(ada) == ["a", "b"]
    assert (tokens(ada), reserved(ada)) == (7, [])


def test_a_stream_that_is_given_up_takes_what_was_heard(model: Model, ada: Person) -> None:
    model.hangs_after = 1
    assert generate(ada, pieces=1) == ["a"]
    assert (tokens(ada), reserved(ada)) == (5, [])


def test_a_stream_that_fails_takes_what_came_of_it(model: Model, ada: Person) -> None:
    model.events = PIECES[:1]
    text, error = generate(ada)
    assert (text, error["code"]) == ("a", "INFERENCE_UNAVAILABLE")
    assert (tokens(ada), reserved(ada)) == (5, [])


def test_a_stream_too_many_is_refused_with_the_same_fields(model: Model, ada: Person) -> None:
    allow(ada, tokens_per_day=MOST - 1)
    (error,) = generate(ada)
    assert error.pop("resetsAt").endswith("T00:00:00+00:00")
    assert error == {"code": "QUOTA_EXCEEDED", "quota": "tokensPerDay", "limit": MOST - 1, "used": 0}
    assert (model.asked, entries(ada)) == (0, {})


def test_what_nobody_settles_lapses_within_the_hour(model: Model, ada: Person) -> None:
    model.may_go_on.clear()
    with ThreadPoolExecutor(1) as client:

        def ask() -> None:
            predict(replace(ada, client=Client()))
            connection.close()

        asked = client.submit(ask)
        assert soon(lambda: model.asked == 1)
        with operator():
            entry = UsageEntry.objects.get()
        model.may_go_on.set()
        asked.result()
    assert entry.lapses_at is not None
    assert 3590 < (entry.lapses_at - entry.at).total_seconds() < 3610
