"""Asking an adapter through the API, with the real engine behind it: the shipped base model, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings

from common.graphql import Context
from platform_site.schema import schema
from tests.cast import Person, make_person
from tests.inference.asking import Files, codes, hers
from tests.rows import BASE, global_id, make_adapter
from tests.web import serving, soon
from training.models import Adapter

PREDICT = """
mutation ($input: PredictInput!) { predict(input: $input) {
  __typename
  ... on Prediction { id text promptTokens completionTokens finishReason adapterDigest baseModel seconds }
  ... on OperationInfo { messages { kind code field message } }
} }
"""
GENERATE = """
subscription ($input: PredictInput!) { generate(input: $input) {
  sequence text prediction { text completionTokens finishReason adapterDigest baseModel }
} }
"""
PROMPT = "def add(a, b):\n"


@pytest.fixture
def away(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings.INFERENCE_URL = f"http://127.0.0.1:{listener.getsockname()[1]}"  # closed by the time it is asked


def predict(person: Person, adapter: Adapter | None = None, **fields: Any) -> dict[str, Any]:
    named = {} if adapter is None else {"adapterId": global_id(adapter)}
    return person.data(PREDICT, input={"prompt": PROMPT, "maxNewTokens": 8, **named, **fields})["predict"]


def test_an_adapter_answers_with_its_digest_and_the_base_with_none(served: None, bob: Person, files: Files) -> None:
    adapter = hers(bob, files)
    with_adapter, base = predict(bob, adapter), predict(bob)
    assert (with_adapter["adapterDigest"], base["adapterDigest"]) == (files.digest, None)
    assert with_adapter["text"] != base["text"]
    for answer in (with_adapter, base):
        assert answer["baseModel"] == BASE
        assert answer["promptTokens"] > 0
        assert 1 <= answer["completionTokens"] <= 8
        assert answer["finishReason"] in {"LENGTH", "STOP"}
    again = predict(bob, adapter)
    assert (again["text"], again["id"] != with_adapter["id"]) == (with_adapter["text"], True)


def test_sampling_repeats_with_its_seed_and_ends_at_a_stop(served: None, alice: Person) -> None:
    sampled = [predict(alice, temperature=1.0, topP=0.9, seed=seed, maxNewTokens=24)["text"] for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    whole = predict(alice, maxNewTokens=24)["text"]
    stop = whole[3:5]
    stopped = predict(alice, maxNewTokens=24, stop=[stop])
    assert (stopped["finishReason"], stopped["text"]) == ("STOP", whole[: whole.index(stop)])


def test_somebody_elses_adapter_is_not_found(served: None, alice: Person, charlie: Person, files: Files) -> None:
    assert codes(predict(alice, hers(charlie, files))) == [("ERROR", "NOT_FOUND", None)]


def test_a_viewer_may_not_ask(served: None, alice: Person, vera: Person, files: Files) -> None:
    assert codes(predict(vera, hers(alice, files))) == [("PERMISSION", "NOT_ALLOWED", None)]
    assert codes(predict(vera)) == [("PERMISSION", "NOT_ALLOWED", None)]


def test_nobody_may_not_either(served: None, anonymous: Any) -> None:
    refusal = anonymous(PREDICT, input={"prompt": PROMPT})["data"]["predict"]
    assert codes(refusal) == [("PERMISSION", "UNAUTHENTICATED", None)]


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"prompt": "x = 1\n" * 2000}, "PROMPT_TOO_LONG", "prompt"),
        ({"prompt": "\ud800"}, "INVALID", "prompt"),
        ({"maxNewTokens": 0}, "INVALID", "maxNewTokens"),
        ({"maxNewTokens": -5}, "INVALID", "maxNewTokens"),
        ({"temperature": -1}, "INVALID", "temperature"),
        ({"topP": 0}, "INVALID", "topP"),
        ({"topP": 1.5}, "INVALID", "topP"),
        ({"stop": [""]}, "INVALID", "stop[0]"),
        ({"stop": ["x"] * 17}, "INVALID", "stop"),
    ],
)
def test_what_cannot_be_generated_is_refused_by_its_field(
    served: None, alice: Person, fields: dict[str, Any], code: str, field: str
) -> None:
    assert codes(predict(alice, **fields)) == [("VALIDATION", code, field)]


@pytest.mark.parametrize("prompt", ["\x00", "→ größer 🙂", "<|endoftext|>", "\u202e"])
def test_any_text_is_a_prompt(served: None, alice: Person, prompt: str) -> None:
    assert predict(alice, prompt=prompt)["__typename"] == "Prediction"


def test_an_adapter_answers_to_its_name_and_version(served: None, alice: Person, charlie: Person, files: Files) -> None:
    adapter, newer = hers(alice, files, name="a:b c"), hers(alice, files, name="a:b c", version=2)
    hers(charlie, files, name="theirs")
    assert (str(adapter), str(newer)) == ("a:b c:1", "a:b c:2")
    assert [predict(alice, model=name)["adapterDigest"] for name in ("a:b c:1", "a:b c:2")] == [files.digest] * 2
    assert (predict(alice, model=BASE)["adapterDigest"], predict(alice, model=None)["adapterDigest"]) == (None, None)
    for name in ("a:b c:3", "a:b c", "theirs:1", "a:b c:01", "", "python-small"):
        assert codes(predict(alice, model=name)) == [("ERROR", "NOT_FOUND", None)], name


def test_a_model_that_is_not_served_and_two_at_once_are_told_apart(served: None, alice: Person, files: Files) -> None:
    assert codes(predict(alice, model="bigcode/starcoder2-3b")) == [("VALIDATION", "BASE_MODEL_NOT_SERVED", "model")]
    make_adapter(alice, name="other", base_model_name="bigcode/starcoder2-3b")
    assert codes(predict(alice, model="other:1")) == [("VALIDATION", "BASE_MODEL_NOT_SERVED", "model")]
    assert codes(predict(alice, hers(alice, files), model=BASE)) == [("VALIDATION", "INVALID", "model")]


def test_an_adapter_of_a_model_that_is_not_served_says_so(served: None, alice: Person) -> None:
    adapter = make_adapter(alice, base_model_name="bigcode/starcoder2-3b")
    assert codes(predict(alice, adapter)) == [("VALIDATION", "BASE_MODEL_NOT_SERVED", "adapterId")]


def test_files_that_are_not_those_of_the_digest_are_never_used(served: None, alice: Person, files: Files) -> None:
    ((kind, code, _),) = codes(predict(alice, files.stored_as(make_adapter(alice, digest="0" * 64))))
    assert (kind, code) == ("ERROR", "ADAPTER_DIGEST_MISMATCH")


class SlowServer:
    """An inference server that keeps everybody waiting until it may go on."""

    def __init__(self) -> None:
        self.waiting = 0
        self.may_go_on = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.waiting += 1
        while not self.may_go_on.is_set():
            await asyncio.sleep(0.02)
        prediction = {"text": "x", "prompt_tokens": 1, "completion_tokens": 1, "finish_reason": "LENGTH"}
        prediction |= {"adapter_digest": None, "base_model": BASE, "seconds": 0.1}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = f"data: {json.dumps({'prediction': prediction})}\n\n".encode()
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def slow(settings: Any) -> Iterator[SlowServer]:
    server = SlowServer()
    with serving(server) as url:
        settings.INFERENCE_URL = url
        yield server
        server.may_go_on.set()


def post(site: str, person: Person, document: str, **variables: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {person.token}"}
    body = {"query": document, "variables": variables}
    return httpx.post(f"{site}/graphql", json=body, headers=headers, timeout=30, trust_env=False)


@pytest.mark.django_db(transaction=True)
def test_with_the_server_away_trying_again_is_advised(away: None) -> None:
    ada = make_person("Ada")
    with serving() as site:
        answer = post(site, ada, PREDICT, input={"prompt": PROMPT})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert codes(answer.json()["data"]["predict"]) == [("ERROR", "INFERENCE_UNAVAILABLE", None)]


@pytest.mark.django_db(transaction=True)
def test_a_request_of_which_a_part_was_carried_out_is_not_to_be_sent_again(away: None) -> None:
    ada = make_person("Ada")
    upload = 'startUpload(input: {fileName: "x", sizeBytes: 1}) { __typename }'
    both = PREDICT.replace("{ predict(", f"{{ begun: {upload} predict(")
    with serving() as site:
        answer = post(site, ada, both, input={"prompt": PROMPT})
    assert (answer.status_code, "Retry-After" in answer.headers) == (200, False)
    assert answer.json()["data"]["begun"] == {"__typename": "UploadTicket"}
    assert codes(answer.json()["data"]["predict"]) == [("ERROR", "INFERENCE_UNAVAILABLE", None)]


@pytest.mark.django_db(transaction=True)
def test_predictions_take_half_of_the_web_threads_and_no_more(slow: SlowServer) -> None:
    ada, half = make_person("Ada"), django_settings.WEB_THREADS // 2
    with serving() as site, ThreadPoolExecutor(half) as clients:
        waiting = [clients.submit(post, site, ada, PREDICT, input={"prompt": PROMPT}) for _ in range(half)]
        assert soon(lambda: slow.waiting == half)
        refused = post(site, ada, PREDICT, input={"prompt": PROMPT})
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
        assert codes(refused.json()["data"]["predict"]) == [("ERROR", "BUSY", None)]
        assert post(site, ada, "{ me { email } }").json() == {"data": {"me": {"email": "ada@example.com"}}}
        assert not any(one.done() for one in waiting)
        slow.may_go_on.set()
        answers = [one.result() for one in waiting]
        assert [answer.json()["data"]["predict"]["text"] for answer in answers] == ["x"] * half
        assert post(site, ada, PREDICT, input={"prompt": PROMPT}).status_code == 200


# ------------------------------------------------------------------------------------------------ streams


def generate(person: Person, **fields: Any) -> list[Any]:
    """The results of one subscription: chunks, or what was wrong."""

    async def run() -> list[Any]:
        variables = {"input": {"prompt": PROMPT, "maxNewTokens": 8, **fields}}
        results: Any = await schema.subscribe(
            GENERATE, variable_values=variables, context_value=Context(principal=person.principal)
        )
        return [
            result.data["generate"] if not result.errors else result.errors[0].extensions async for result in results
        ]

    return asyncio.run(run())


@pytest.mark.django_db(transaction=True)
def test_a_stream_gives_the_text_piece_by_piece_and_then_the_whole(served: None, files: Files) -> None:
    ada = make_person("Ada")
    adapter = hers(ada, files)
    chunks = generate(ada, adapterId=global_id(adapter))
    assert [chunk["sequence"] for chunk in chunks] == list(range(1, len(chunks) + 1))
    assert [chunk["prediction"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    whole = chunks[-1]["prediction"]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"] == predict(ada, adapter)["text"]
    assert (whole["adapterDigest"], whole["baseModel"]) == (files.digest, BASE)

    body = {"query": GENERATE, "variables": {"input": {"prompt": PROMPT, "maxNewTokens": 8}}}
    headers = {"Authorization": f"Bearer {ada.token}", "Accept": "text/event-stream"}
    with serving() as url:
        answer = httpx.post(f"{url}/graphql/stream", json=body, headers=headers, timeout=30, trust_env=False)
    streamed = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:") and len(line) > 6]
    assert streamed[-1]["data"]["generate"]["prediction"]["text"] == predict(ada)["text"]


@pytest.mark.django_db(transaction=True)
def test_a_stream_is_refused_with_the_same_codes(served: None) -> None:
    ada = make_person("Ada")
    assert generate(ada, prompt="x = 1\n" * 2000) == [{"code": "PROMPT_TOO_LONG", "field": "prompt"}]
    assert generate(ada, maxNewTokens=0) == [{"code": "INVALID", "field": "maxNewTokens"}]


@pytest.mark.django_db(transaction=True)
def test_a_stream_says_when_to_try_again(away: None) -> None:
    assert generate(make_person("Ada")) == [{"code": "INFERENCE_UNAVAILABLE", "retryAfter": 5}]
