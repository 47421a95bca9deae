"""Several requests at once: each has its own answer or refusal, in its place, and its own entry in the ledger."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from django.db import connection
from django.test import Client

from accounts.models import Membership, Role
from common.tenancy import operator
from inference import actions
from tests.accounts.ledger import allow, entries, used
from tests.cast import Person, make_person
from tests.inference.asking import Files, codes, hers
from tests.rows import BASE, global_id, make_adapter
from tests.web import serving, soon

BATCH = """mutation ($input: PredictBatchInput!) { answer: predictBatch(input: $input) {
  __typename
  ... on PredictionBatch { results {
    __typename
    ... on Prediction { id text promptTokens completionTokens finishReason adapterDigest baseModel }
    ... on QuotaExceeded { quota code limit used }
    ... on OperationInfo { messages { kind code field message } } } }
  ... on QuotaExceeded { quota code limit used }
  ... on OperationInfo { messages { kind code field message } } } }"""
PROMPT = "def add(a, b):\n"
MOST = len(PROMPT) + 8


def batch(person: Person, *requests: dict[str, Any]) -> dict[str, Any]:
    asked = [{"prompt": PROMPT, "maxNewTokens": 8, **request} for request in requests]
    return person.data(BATCH, input={"requests": asked})["answer"]


def results(person: Person, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    answer = batch(person, *requests)
    assert answer["__typename"] == "PredictionBatch", answer
    return answer["results"]


# ------------------------------------------------------------------------------------------------ with the real model


@pytest.mark.usefixtures("served")
def test_each_is_answered_in_its_place_with_its_text_or_what_was_wrong(
    alice: Person, charlie: Person, files: Files
) -> None:
    adapter, another = hers(alice, files), hers(charlie, files)
    answers = results(
        alice,
        {},
        {"adapterId": global_id(adapter)},
        {"adapterId": global_id(another)},
        {"model": "First:1"},
        {"model": "First:2"},
        {"model": BASE},
        {"temperature": -1},
        {"prompt": "x = 1\n" * 2000},
        {"model": "bigcode/starcoder2-3b"},
        {"adapterId": global_id(adapter), "model": "First:1"},
        {"adapterId": "x"},
    )
    refused = [place for place, answer in enumerate(answers) if answer["__typename"] != "Prediction"]
    assert refused == [2, 4, 6, 7, 8, 9, 10]
    assert [codes(answers[place])[0] for place in refused] == [
        ("ERROR", "NOT_FOUND", None),
        ("ERROR", "NOT_FOUND", None),
        ("VALIDATION", "INVALID", "temperature"),
        ("VALIDATION", "PROMPT_TOO_LONG", "prompt"),
        ("VALIDATION", "BASE_MODEL_NOT_SERVED", "model"),
        ("VALIDATION", "INVALID", "model"),
        ("ERROR", "NOT_FOUND", None),
    ]
    base, by_id, by_name, base_by_name = (answers[place] for place in (0, 1, 3, 5))
    assert [each["adapterDigest"] for each in (base, by_id, by_name, base_by_name)] == [
        *(None, files.digest, files.digest, None),
    ]
    assert base["text"] == base_by_name["text"] != by_id["text"] == by_name["text"]
    assert len({each["id"] for each in (base, by_id, by_name, base_by_name)}) == 4
    tokens = sum(each["promptTokens"] + each["completionTokens"] for each in (base, by_id, by_name, base_by_name))
    assert (used(alice).tokens_today, len(entries(alice))) == (tokens, 1)


@pytest.mark.usefixtures("served")
def test_together_they_say_what_each_says_alone(alice: Person, files: Files) -> None:
    adapter = hers(alice, files)
    requests: list[dict[str, Any]] = [
        {
            "adapterId": global_id(adapter) if number % 2 else None,
            "temperature": 0.9,
            "seed": number,
            "maxNewTokens": 6,
        }
        for number in range(64)
    ]
    together = results(alice, *requests)
    assert [each["__typename"] for each in together] == ["Prediction"] * 64
    for place in (0, 1, 30, 63):
        (alone,) = results(alice, requests[place])
        same = ("text", "promptTokens", "completionTokens", "finishReason", "adapterDigest")
        assert [alone[name] for name in same] == [together[place][name] for name in same]
    assert len({each["text"] for each in together}) > 32


# ------------------------------------------------------------------------------------------------ what is asked of it


PREDICTION = {"text": "ab", "prompt_tokens": 3, "completion_tokens": 4, "finish_reason": "LENGTH"}
PREDICTION |= {"adapter_digest": None, "base_model": BASE, "seconds": 0.1}


@dataclass
class Model:
    """An inference server that hears all requests before it answers any, each as its prompt says."""

    asked: list[dict[str, Any]] = field(default_factory=list)
    may_go_on: threading.Event = field(default_factory=threading.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body)
        self.asked.append(request)
        while not self.may_go_on.is_set():
            await asyncio.sleep(0.02)
        status, answer = ANSWERS.get(request["prompt"], ANSWERS[""])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


ANSWERS = {
    "": (200, _event({"sequence": 1, "text": "ab", "tokens": 7, "prediction": PREDICTION})),
    "busy": (503, b'{"code": "QUEUE_FULL", "message": "Full.", "retry_after_s": 2}'),
    "late": (503, b'{"code": "WAITED_TOO_LONG", "message": "Late.", "retry_after_s": 3}'),
    "broken": (500, b'{"code": "NUMERICS", "message": "Not finite."}'),
    "cut off": (200, _event({"sequence": 1, "text": "a", "tokens": 5})),
}


@pytest.fixture
def model(settings: Any) -> Iterator[Model]:
    model = Model()
    model.may_go_on.set()
    with serving(model) as url:
        settings.INFERENCE_URL = url
        yield model
        model.may_go_on.set()


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


whole = pytest.mark.django_db(transaction=True)


@whole
def test_all_are_sent_at_once_and_take_one_place_among_the_predictions(model: Model, ada: Person) -> None:
    model.may_go_on.clear()
    free = actions._places._value

    def ask() -> list[dict[str, Any]]:
        try:
            return results(replace(ada, client=Client()), *[{"prompt": f"{number}"} for number in range(64)])
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as client:
        asked = client.submit(ask)
        assert soon(lambda: len(model.asked) == 64)
        assert actions._places._value == free - 1
        kept = [amount for (_, key), amount in entries(ada).items() if key.startswith("prediction:")]
        assert sorted(kept) == [1 + 8] * 10 + [2 + 8] * 54
        assert not asked.done()
        model.may_go_on.set()
        assert [each["text"] for each in asked.result()] == ["ab"] * 64
    assert sorted(int(each["prompt"]) for each in model.asked) == list(range(64))
    assert {each["wait_s"] for each in model.asked} == {120}, "the last of them waits for the first"
    assert actions._places._value == free
    assert (used(ada).tokens_today, len(entries(ada))) == (64 * 7, 1)


@whole
@pytest.mark.parametrize("count", [65, 200])
def test_more_than_64_are_refused_and_nobody_is_asked(model: Model, ada: Person, count: int) -> None:
    answer = batch(ada, *[{}] * count)
    assert codes(answer) == [("VALIDATION", "BATCH_TOO_LARGE", "requests")]
    assert str(count) in answer["messages"][0]["message"]
    assert (model.asked, entries(ada)) == ([], {})


@whole
def test_no_request_gets_no_answer(model: Model, ada: Person) -> None:
    assert results(ada) == []
    assert (model.asked, entries(ada)) == ([], {})


@whole
def test_each_fails_by_itself_and_takes_what_came_of_it(model: Model, ada: Person) -> None:
    answers = results(ada, *({"prompt": prompt} for prompt in ("", "busy", "broken", "cut off", "late", "")))
    assert [each["__typename"] for each in answers] == ["Prediction", *["OperationInfo"] * 4, "Prediction"]
    assert [codes(answers[place])[0][:2] for place in (1, 2, 3, 4)] == [
        ("ERROR", "QUEUE_FULL"),
        ("ERROR", "INTERNAL"),
        ("ERROR", "INFERENCE_UNAVAILABLE"),
        ("ERROR", "WAITED_TOO_LONG"),
    ]
    assert "Not finite" not in json.dumps(answers)
    assert (used(ada).tokens_today, len(entries(ada))) == (7 + 5 + 7, 1)


@whole
def test_as_many_are_asked_as_the_quota_allows(model: Model, ada: Person) -> None:
    allow(ada, tokens_per_day=2 * MOST + 10)
    answers = results(ada, {}, {}, {}, {"prompt": "x", "maxNewTokens": 9}, {})
    assert [each["__typename"] for each in answers] == [
        *("Prediction", "Prediction", "QuotaExceeded", "Prediction", "QuotaExceeded"),
    ]
    assert answers[2] == {
        "__typename": "QuotaExceeded",
        "quota": "tokensPerDay",
        "code": "QUOTA_EXCEEDED",
        "limit": 2 * MOST + 10,
        "used": 2 * MOST,
    }
    assert answers[4]["used"] == 2 * MOST + 10
    assert (len(model.asked), used(ada).tokens_today) == (3, 3 * 7)


@whole
def test_what_is_the_answer_to_all_is_the_answer(model: Model, ada: Person) -> None:
    """Nothing came of it, so the whole may be sent again."""
    allow(ada, tokens_per_day=MOST - 1)
    answer = batch(ada, {}, {})
    assert (answer["__typename"], answer["used"], answer["limit"]) == ("QuotaExceeded", 0, MOST - 1)
    assert (model.asked, entries(ada)) == ([], {})
    allow(ada, tokens_per_day=1000)
    headers = {"Authorization": f"Bearer {ada.token}"}
    requests = [{"prompt": "busy"}, {"prompt": "late"}]
    with serving() as site:
        sent = {"query": BATCH, "variables": {"input": {"requests": requests}}}
        refused = httpx.post(f"{site}/graphql", json=sent, headers=headers, timeout=30, trust_env=False)
        partly = {**sent, "variables": {"input": {"requests": [*requests, {"prompt": ""}]}}}
        answered = httpx.post(f"{site}/graphql", json=partly, headers=headers, timeout=30, trust_env=False)
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "3")
    assert codes(refused.json()["data"]["answer"]) == [("ERROR", "WAITED_TOO_LONG", None)]
    assert (answered.status_code, "Retry-After" in answered.headers) == (200, False)
    assert [each["__typename"] for each in answered.json()["data"]["answer"]["results"]][2] == "Prediction"
    assert used(ada).tokens_today == 7


@whole
def test_a_batch_is_over_when_its_time_is(model: Model, ada: Person, settings: Any) -> None:
    settings.INFERENCE_TIMEOUT_S = 0.3
    model.may_go_on.clear()
    assert codes(batch(ada, {}, {})) == [("ERROR", "INFERENCE_TIMEOUT", None)]
    assert used(ada).tokens_today == 0
    assert not any(key.startswith("prediction:") for _, key in entries(ada))


@whole
def test_adapters_of_several_organizations_are_each_paid_by_their_own(model: Model, ada: Person) -> None:
    charlie = make_person("Charlie")
    with operator():
        Membership.objects.create(organization=charlie.organization, user=ada.user, role=Role.MEMBER)
    theirs, own = make_adapter(charlie), make_adapter(ada)
    allow(charlie, tokens_per_day=MOST)
    requests = [{"adapterId": global_id(each)} for each in (theirs, own, theirs)]
    answers = results(ada, *requests)
    assert [each["__typename"] for each in answers] == ["Prediction", "Prediction", "QuotaExceeded"]
    assert (used(ada).tokens_today, used(charlie).tokens_today) == (7, 7)
    # both have a First:1
    assert codes(results(ada, {"model": "First:1"}, {})[0]) == [("VALIDATION", "AMBIGUOUS", "model")]


@whole
def test_who_may_not_ask_is_told_so_of_each_and_nobody_signed_in_once(
    model: Model, ada: Person, anonymous: Any
) -> None:
    vera = make_person("Vera", ada.organization, Role.VIEWER)
    assert [codes(each) for each in results(vera, {}, {})] == [[("PERMISSION", "NOT_ALLOWED", None)]] * 2
    refusal = anonymous(BATCH, input={"requests": [{"prompt": PROMPT}]})["data"]["answer"]
    assert codes(refusal) == [("PERMISSION", "UNAUTHENTICATED", None)]
    assert (model.asked, entries(ada)) == ([], {})
