"""The official `openai` package against /v1: as it comes, over a real socket, with the real engine behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from transformers import AutoTokenizer

from accounts.models import Membership, Role
from common.tenancy import operator
from tests.accounts.ledger import entries, used
from tests.cast import Person, make_person
from tests.inference.asking import Files, hers
from tests.inference.openai_client import client_of, key_of
from tests.rows import BASE, make_adapter
from tests.web import serving
from training.catalogue import SHIPPED
from training.models import AdapterStage
from training.trainer.encoding import encode

PROMPT = "def add(a, b):\n"
HELLO = [{"role": "user", "content": "hello"}]
PREDICT = "mutation ($input: PredictInput!) { predict(input: $input) { ... on Prediction { text } } }"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Person:
    return make_person("Ada")


@pytest.fixture
def site() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def client(served: None, ada: Person, site: str) -> OpenAI:
    return client_of(ada, site)


def greedily(person: Person, model: str, **fields: Any) -> str:
    """What `predict` says."""
    asked = {"prompt": PROMPT, "maxNewTokens": 8, "model": model, **fields}
    return person.data(PREDICT, input=asked)["predict"]["text"]


def complete(client: OpenAI, model: str = BASE, **more: Any) -> Any:
    return client.completions.create(**{"model": model, "prompt": PROMPT, "max_tokens": 8, "temperature": 0, **more})


def chat(client: OpenAI, model: str = BASE, **more: Any) -> Any:
    asked = {"model": model, "messages": HELLO, "max_completion_tokens": 8, "temperature": 0, **more}
    return client.chat.completions.create(**asked)


def learned_before_the_answer(said: list[dict[str, Any]]) -> int:
    """Tokens that the trainer gives a chat up to the assistant's next answer."""
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 7?"}, *said[2:]]
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED / "python-small")
    example = encode({"messages": [*plain, {"role": "assistant", "content": "x"}]}, tokenizer, 1024)
    assert example is not None
    return len(example.ids) - 2  # the answer, and the end of text


# ------------------------------------------------------------------------------------------------ models


def test_models_are_the_base_and_ones_own_adapters_by_name_and_version(
    client: OpenAI, ada: Person, site: str, files: Files
) -> None:
    charlie = make_person("Charlie")
    first = hers(ada, files, name="a:b/c d")
    second = hers(ada, files, name="a:b/c d", version=2)
    archived = make_adapter(ada, name="old", stage=AdapterStage.ARCHIVED)
    make_adapter(ada, name="large", base_model_name="bigcode/starcoder2-3b")
    make_adapter(charlie, name="theirs")
    listed = list(client.models.list())
    assert [model.id for model in listed] == [BASE, "a:b/c d:2", "a:b/c d:1"]
    assert {model.object for model in listed} == {"model"}
    assert [model.owned_by for model in listed] == ["platform", "ada-s", "ada-s"]
    assert [model.created for model in listed[1:]] == [int(each.created_at.timestamp()) for each in (second, first)]
    assert listed[1].model_extra == {"base_model": BASE, "digest": files.digest, "stage": "CANDIDATE"}
    assert [client.models.retrieve(model.id) for model in listed] == listed
    assert client.models.retrieve(str(archived)).model_extra["stage"] == "ARCHIVED"
    key = client_of(key_of(ada, Role.VIEWER), site)
    assert [model.id for model in key.models.list()] == [model.id for model in listed]


def test_anothers_model_is_as_one_that_never_existed(client: OpenAI, ada: Person, site: str, files: Files) -> None:
    hers(make_person("Charlie"), files, name="theirs")
    told = set()
    for name in ("theirs:1", "theirs:2", "nobodys:1", "nobodys", "theirs", "\x00", "ü" * 500, "%", " "):
        for ask in (client.models.retrieve, lambda model: complete(client, model), lambda model: chat(client, model)):
            with pytest.raises(openai.NotFoundError) as refusal:
                ask(name)
            kept = {"content-length", "content-type", "www-authenticate", "retry-after", "x-adapter-digest"}
            headers = {each: value for each, value in refusal.value.response.headers.items() if each in kept}
            told.add((refusal.value.response.text, json.dumps(headers)))
    assert len(told) == 1
    assert refusal.value.body == {
        "message": "There is no such model, or none that you may know of: GET /v1/models lists those that you may ask.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert entries(ada) == {}, "and nothing was reserved"


def test_what_cannot_be_asked_says_why(client: OpenAI, ada: Person) -> None:
    make_adapter(ada, name="old", stage=AdapterStage.ARCHIVED)
    make_adapter(ada, name="large", base_model_name="bigcode/starcoder2-3b")
    codes = {
        "old:1": "ADAPTER_ARCHIVED",
        "large:1": "BASE_MODEL_NOT_SERVED",
        "bigcode/starcoder2-3b": "BASE_MODEL_NOT_SERVED",
    }
    for name, code in codes.items():
        with pytest.raises(openai.BadRequestError) as refusal:
            complete(client, name)
        assert (refusal.value.code, refusal.value.param, refusal.value.type) == (code, "model", "invalid_request_error")


def test_a_name_of_several_organizations_is_told_apart_by_a_key(
    client: OpenAI, ada: Person, site: str, files: Files
) -> None:
    charlie = make_person("Charlie")
    with operator():
        Membership.objects.create(organization=charlie.organization, user=ada.user, role=Role.MEMBER)
    for person in (ada, charlie):
        hers(person, files, name="reviews")
    with pytest.raises(openai.BadRequestError, match="use an API key, which belongs to one") as refusal:
        complete(client, "reviews:1")
    assert (refusal.value.code, refusal.value.param) == ("AMBIGUOUS", "model")
    assert complete(client_of(key_of(charlie), site), "reviews:1").choices[0].text


# ------------------------------------------------------------------------------------------------ whole answers


def test_a_completion_is_what_predict_says_with_the_adapters_digest(
    client: OpenAI, ada: Person, site: str, files: Files
) -> None:
    hers(ada, files, name="reviews")
    said, by_base = greedily(ada, "reviews:1"), greedily(ada, BASE)
    before = used(ada).tokens_today
    raw = client.completions.with_raw_response.create(
        model="reviews:1", prompt=PROMPT, max_tokens=8, temperature=0, user="somebody"
    )
    made = raw.parse()
    (choice,) = made.choices
    assert (choice.text, choice.index, choice.finish_reason, choice.logprobs) == (said, 0, "length", None)
    assert (made.object, made.model, made.system_fingerprint) == ("text_completion", "reviews:1", files.digest)
    assert made.id.startswith("cmpl-")
    assert raw.headers["x-adapter-digest"] == files.digest
    assert raw.headers["x-request-id"].startswith("req_") and made._request_id == raw.headers["x-request-id"]
    assert raw.headers["ratelimit-limit"] == "1000000"
    assert made.usage.completion_tokens == 8
    assert made.usage.total_tokens == made.usage.prompt_tokens + 8 == used(ada).tokens_today - before

    raw = client_of(key_of(ada), site).completions.with_raw_response.create(
        model=BASE, prompt=PROMPT, max_tokens=8, temperature=0
    )
    assert raw.parse().choices[0].text == by_base != said
    assert "x-adapter-digest" not in raw.headers and raw.parse().system_fingerprint is None


def test_a_chat_has_the_form_that_the_trainer_gives_it(client: OpenAI, ada: Person, files: Files) -> None:
    hers(ada, files, name="reviews")
    said = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "7?"}]},
        {"role": "assistant", "content": "A number.", "refusal": None, "tool_calls": []},
        {"role": "user", "content": "And 8?"},
    ]
    made = chat(client, "reviews:1", messages=said)
    (choice,) = made.choices
    assert (made.object, made.id[:9], choice.finish_reason) == ("chat.completion", "chatcmpl-", "length")
    assert (choice.message.role, choice.message.refusal) == ("assistant", None)
    assert made.usage.prompt_tokens == learned_before_the_answer(said)
    more = chat(client, "reviews:1", messages=[*said, choice.message.model_dump(), *HELLO])
    assert more.usage.prompt_tokens > made.usage.prompt_tokens


def test_choices_of_a_seed_are_all_different_and_come_again(client: OpenAI, ada: Person) -> None:
    sampled: dict[str, Any] = {"temperature": 1.0, "max_tokens": 12, "n": 3}
    first, again = (complete(client, seed=5, **sampled) for _ in range(2))
    texts = [choice.text for choice in first.choices]
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    assert [choice.text for choice in again.choices] == texts
    assert len(set(texts)) == 3
    assert complete(client, seed=6, **{**sampled, "n": 1}).choices[0].text == texts[1], "the next seed's"
    assert first.usage.prompt_tokens == 3 * complete(client).usage.prompt_tokens, "each reads its prompt"
    assert used(ada).tokens_today == sum(
        each.usage.total_tokens
        for each in (first, again, complete(client, seed=6, **{**sampled, "n": 1}), complete(client))
    )
    assert all(key.startswith("day:") for _, key in entries(ada)), "nothing stays reserved"


def test_several_prompts_are_answered_in_their_order(client: OpenAI) -> None:
    prompts = [PROMPT, "import os\n"]
    made = complete(client, prompt=prompts, n=2)
    alone = [complete(client, prompt=prompt).choices[0].text for prompt in prompts]
    assert [choice.text for choice in made.choices] == [alone[0], alone[0], alone[1], alone[1]]
    assert [choice.index for choice in made.choices] == [0, 1, 2, 3]


def test_an_answer_ends_before_a_stop(client: OpenAI) -> None:
    whole = complete(client, max_tokens=24).choices[0].text
    stop = whole[3:5]
    for given in (stop, ["never there", stop]):
        (choice,) = complete(client, max_tokens=24, stop=given).choices
        assert (choice.text, choice.finish_reason) == (whole[: whole.index(stop)], "stop")
    assert complete(client, max_tokens=24, stop=None).choices[0].text == whole


def test_where_nobody_says_how_many_tokens_there_is_openais_number_and_ours(client: OpenAI) -> None:
    counted = client.completions.create(model=BASE, prompt=PROMPT, seed=1).usage.completion_tokens
    assert 1 <= counted <= 16
    made = client.completions.create(model=BASE, prompt=PROMPT, temperature=0)
    assert (made.usage.completion_tokens, made.choices[0].finish_reason) == (16, "length")


# ------------------------------------------------------------------------------------------------ streams


def test_a_stream_of_a_completion_is_the_whole_in_pieces(client: OpenAI, ada: Person, files: Files) -> None:
    hers(ada, files, name="reviews")
    whole = complete(client, "reviews:1")
    before = used(ada).tokens_today
    parts = list(complete(client, "reviews:1", stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].text for part in parts[:-1]) == whole.choices[0].text
    assert [part.choices[0].finish_reason for part in parts[:-1]] == [None] * (len(parts) - 2) + ["length"]
    assert (parts[-1].choices, parts[-1].usage) == ([], whole.usage)
    assert {part.usage for part in parts[:-1]} == {None}
    assert len({(part.id, part.object, part.created, part.model, part.system_fingerprint) for part in parts}) == 1
    assert (parts[0].object, parts[0].system_fingerprint) == ("text_completion", files.digest)
    assert used(ada).tokens_today - before == whole.usage.total_tokens
    assert all(part.choices for part in complete(client, stream=True)), "no usage where nobody asks for it"


def test_a_stream_of_a_chat_begins_with_who_speaks(client: OpenAI) -> None:
    whole = chat(client, n=2)
    parts = list(chat(client, n=2, stream=True))
    assert {part.object for part in parts} == {"chat.completion.chunk"}
    for index in (0, 1):
        deltas = [part.choices[0] for part in parts if part.choices[0].index == index]
        assert (deltas[0].delta.role, deltas[0].delta.content) == ("assistant", "")
        assert "".join(each.delta.content or "" for each in deltas) == whole.choices[index].message.content
        assert [each.finish_reason for each in deltas] == [None] * (len(deltas) - 1) + ["length"]
        assert deltas[-1].delta.content is None


def test_a_stream_on_the_wire_ends_with_done(client: OpenAI, ada: Person, site: str, files: Files) -> None:
    hers(ada, files, name="reviews")
    body = {"model": "reviews:1", "prompt": PROMPT, "max_tokens": 4, "stream": True}
    headers = {"Authorization": f"Bearer {ada.token}"}
    answer = httpx.post(f"{site}/v1/completions", json=body, headers=headers, timeout=30, trust_env=False)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-adapter-digest"] == files.digest
    assert answer.headers["x-request-id"].startswith("req_") and answer.headers["ratelimit-limit"] == "1000000"
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(json.loads(event.removeprefix("data: "))["object"] == "text_completion" for event in events)


def test_the_asynchronous_client_streams_too(client: OpenAI, ada: Person, site: str) -> None:
    async def said() -> str:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=f"{site}/v1", api_key=ada.token, http_client=http) as asked:
            stream = await asked.chat.completions.create(
                model=BASE, messages=HELLO, max_completion_tokens=8, temperature=0, stream=True
            )
            return "".join([part.choices[0].delta.content or "" async for part in stream])

    assert asyncio.run(said()) == chat(client).choices[0].message.content


# ------------------------------------------------------------------------------------------------ values


UNUSABLE: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "x = 1\n" * 2000}, "context_length_exceeded", "prompt"),
    ({"prompt": "x = 1\n" * 180_000}, "context_length_exceeded", "prompt"),
    ({"max_tokens": 10**6}, "context_length_exceeded", "prompt"),
    ({"max_tokens": 0}, "INVALID", "max_tokens"),
    ({"temperature": -1}, "INVALID", "temperature"),
    ({"top_p": 1.5}, "INVALID", "top_p"),
    ({"stop": ["x"] * 10_000}, "INVALID", "stop"),
    ({"stop": ["ok", ""]}, "INVALID", "stop[1]"),
    ({"seed": 2**63 - 1, "n": 2}, "INVALID", "seed"),
]


def test_a_value_that_cannot_be_used_is_refused_by_its_name(client: OpenAI, ada: Person) -> None:
    for given, code, param in UNUSABLE:
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as refusal:
                complete(client, stream=stream, **given)
            assert (refusal.value.code, refusal.value.param) == (code, param)
    assert used(ada).tokens_today == 0
    assert not any(key.startswith("prediction:") for _, key in entries(ada))


def test_a_chat_names_its_own_parameters(client: OpenAI) -> None:
    long = [{"role": "user", "content": "x = 1\n" * 2000}]
    for given, param in [({"messages": long}, "messages"), ({"max_completion_tokens": 0}, "max_completion_tokens")]:
        with pytest.raises(openai.BadRequestError) as refusal:
            chat(client, **given)
        assert refusal.value.param == param
