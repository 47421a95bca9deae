"""What clients of OpenAI's API are told when there is no answer: each error class of the official package, on the wire and in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
from django.db import OperationalError
from openai import OpenAI

from accounts.actions import keys
from accounts.models import ApiKey, Membership, Organization, RefreshToken, Role
from common.tenancy import operator, tenant
from platform_site import lapse
from platform_site.v1.errors import NO_SUCH_MODEL, worded
from tests.accounts.ledger import allow, entries, used
from tests.cast import Person, make_person
from tests.inference.openai_client import client_of, key_of
from tests.inference.stand_in import PIECES, Model
from tests.rows import BASE
from tests.web import serving, soon

PROMPT = "def add(a, b):\n"
MOST = len(PROMPT) + 8
ASKED: dict[str, Any] = {"model": BASE, "prompt": PROMPT, "max_tokens": 8}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Person:
    return make_person(f"ada-{uuid4().hex}")  # rates are counted by user, for a minute


@pytest.fixture
def site() -> Iterator[str]:
    with serving() as url:
        yield url


@pytest.fixture
def client(ada: Person, site: str) -> OpenAI:
    return client_of(ada, site)


def post(site: str, bearer: str | None, path: str = "/v1/completions", **more: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    given = {"json": ASKED} if "content" not in more else {}
    return httpx.post(f"{site}{path}", headers=headers, timeout=30, trust_env=False, **given, **more)


def reserved(person: Person) -> list[str]:
    return [key for _, key in entries(person) if key.startswith("prediction:")]


# ------------------------------------------------------------------------------------------------ who asks


def test_a_wrong_key_is_an_authentication_error_whatever_is_wrong_with_it(ada: Person, site: str) -> None:
    expired = replace(ada, token=key_of(ada))
    with tenant(ada.principal):
        keys.revoke_key(actor=ada.principal, key=ApiKey.objects.get())
    told = set()
    for bearer in ("guessed", f"ftk_{uuid4().hex}", expired.token, f"{ada.token}x"):
        asking = client_of(bearer, site)
        for ask in (asking.models.list, lambda asking=asking: asking.completions.create(**ASKED)):
            with pytest.raises(openai.AuthenticationError) as refusal:
                ask()
            told.add(refusal.value.response.text)
            assert refusal.value.response.headers["www-authenticate"] == "Bearer"
            assert refusal.value.request_id is not None
    told |= {post(site, None).text, httpx.get(f"{site}/v1/models", trust_env=False).text}
    (only,) = told
    assert json.loads(only)["error"] == {
        "message": "Sign in first: send `Authorization: Bearer <access token>`.",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_api_key",
    }


def test_whoever_may_only_look_is_refused_permission(model: Model, ada: Person, site: str) -> None:
    with pytest.raises(openai.PermissionDeniedError) as refusal:
        client_of(key_of(ada, Role.VIEWER), site).completions.create(**ASKED)
    assert (refusal.value.type, refusal.value.code) == ("request_forbidden", "NOT_ALLOWED")
    with operator():
        Organization.objects.filter(pk=ada.organization.pk).update(closes_at="2999-01-01T00:00Z")
    with pytest.raises(openai.PermissionDeniedError) as refusal:
        client_of(ada, site).completions.create(**ASKED)
    assert refusal.value.code == "ORGANIZATION_CLOSING"
    assert (model.asked, entries(ada)) == (0, {})


# ------------------------------------------------------------------------------------------------ addresses and bodies


def test_what_is_not_there_and_what_is_there_otherwise(ada: Person, site: str) -> None:
    for path in ("/v1/", "/v1/files", "/v1/completions/", "/v1/modelsx"):
        answer = post(site, ada.token, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url"), path
        assert answer.headers["x-request-id"].startswith("req_")
    answer = post(site, ada.token, "/v1/models")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    answer = httpx.get(f"{site}/v1/chat/completions", trust_env=False)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    answer = httpx.get(f"{site}/v1/models/", headers={"Authorization": f"Bearer {ada.token}"}, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, NO_SUCH_MODEL)


HOSTILE: dict[str, tuple[bytes, str | None]] = {
    "nothing": (b"", None),
    "no JSON": (b"{", None),
    "a list": (b"[]", None),
    "not UTF-8": (b'{"model": "\xff\xfe"}', None),
    "deep": (b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
    "deep where a list may be": (b'{"model": "m", "prompt": "x", "stop": ' + b"[" * 900 + b"]" * 900 + b"}", "stop"),
    "deep where a number is": (b'{"model": "m", "prompt": "x", "temperature": ' + b"[" * 900 + b"]" * 900 + b"}", "temperature"),
    "NaN": (b'{"model": "m", "prompt": "x", "temperature": NaN}', None),
    "infinity": (b'{"model": "m", "prompt": "x", "temperature": -Infinity}', None),
    "a number of 5,000 digits": (b'{"model": "m", "prompt": "x", "max_tokens": ' + b"9" * 5000 + b"}", None),
    "a number of 100 digits": (b'{"model": "m", "prompt": "x", "max_tokens": ' + b"9" * 100 + b"}", "max_tokens"),
    "a fraction of tokens": (b'{"model": "m", "prompt": "x", "max_tokens": 1.5}', "max_tokens"),
    "true for a number": (b'{"model": "m", "prompt": "x", "n": true}', "n"),
    "no choices": (b'{"model": "m", "prompt": "x", "n": 0}', "n"),
    "too many choices": (b'{"model": "m", "prompt": ["x", "y"], "n": 33}', "n"),
    "a text for a number": (b'{"model": "m", "prompt": "x", "seed": "7"}', "seed"),
    "a number for a model": (b'{"model": 7, "prompt": "x"}', "model"),
    "no model": (b'{"prompt": "x"}', "model"),
    "no prompt": (b'{"model": "m"}', "prompt"),
    "no prompts": (b'{"model": "m", "prompt": []}', "prompt"),
    "600,000 prompts": (b'{"model": "m", "prompt": [' + b",".join([b'""'] * 600_000) + b"]}", "prompt"),
    "a long prompt 64 times": (b'{"model": "m", "n": 64, "prompt": "' + b"x" * 40_000 + b'"}', "n"),
    "400,000 stops": (b'{"model": "m", "prompt": "x", "stop": [' + b",".join([b'"s"'] * 400_000) + b"]}", "stop"),
    "token ids": (b'{"model": "m", "prompt": [1, 2, 3]}', "prompt"),
    "a stop that is no text": (b'{"model": "m", "prompt": "x", "stop": [1]}', "stop"),
    "stream: 1": (b'{"model": "m", "prompt": "x", "stream": 1}', "stream"),
    "options of no stream": (b'{"model": "m", "prompt": "x", "stream_options": {"include_usage": true}}', "stream_options"),
    "a misspelled parameter": (b'{"model": "m", "prompt": "x", "temprature": 0}', "temprature"),
    "a parameter that is half a pair": (b'{"model": "m", "prompt": "x", "\\ud800": 0}', ""),
    "another's parameter": (b'{"model": "m", "prompt": "x", "messages": []}', "messages"),
}  # fmt: skip


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_a_hostile_body_is_a_bad_request_that_reserves_nothing(
    model: Model, ada: Person, site: str, streams: bool
) -> None:
    with httpx.Client(trust_env=False, headers={"Authorization": f"Bearer {ada.token}"}, timeout=30) as opened:
        for what, (content, param) in HOSTILE.items():
            if streams and b'"stream' not in content:
                content = content.replace(b"{", b'{"stream": true, ', 1)
            answer = opened.post(f"{site}/v1/completions", content=content)
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), (what, answer.text)
            assert answer.json()["error"]["type"] == "invalid_request_error"
            assert len(answer.content) < 600, "little is echoed"
    assert (model.asked, entries(ada)) == (0, {})


def test_a_hostile_chat_is_a_bad_request_that_names_the_place(model: Model, client: OpenAI, ada: Person) -> None:
    hello = {"role": "user", "content": "hello"}
    wrong: list[tuple[Any, str]] = [
        ("hello", "messages"),
        ([], "messages"),
        (["hello"], "messages[0]"),
        ([hello, {"role": "tool", "content": "x"}], "messages[1].role"),
        ([{"role": ["user"], "content": "x"}], "messages[0].role"),
        ([{"content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text", "text": 7}]}], "messages[0].content[0]"),
        ([{**hello, "name": "ada"}], "messages[0].name"),
        ([hello] * 257, "messages"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}], "messages[0].tool_calls"),
    ]
    for messages, param in wrong:
        with pytest.raises(openai.BadRequestError) as refusal:
            client.chat.completions.create(model=BASE, messages=messages)
        assert refusal.value.param == param
    with pytest.raises(openai.BadRequestError, match="not both"):
        client.chat.completions.create(model=BASE, messages=[hello], max_tokens=1, max_completion_tokens=1)
    assert (model.asked, entries(ada)) == (0, {})


NOT_SERVED: list[tuple[str, dict[str, Any]]] = [
    ("completions", {"logprobs": 0}),
    ("completions", {"echo": True}),
    ("completions", {"suffix": "return"}),
    ("completions", {"best_of": 2}),
    ("completions", {"presence_penalty": 0.5}),
    ("completions", {"logit_bias": {"50256": -100}}),
    ("chat", {"logprobs": True}),
    ("chat", {"top_logprobs": 2}),
    ("chat", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("chat", {"response_format": {"type": "json_object"}}),
    ("chat", {"frequency_penalty": 1}),
    ("chat", {"reasoning_effort": "low"}),
]


def test_what_would_change_the_answer_and_is_not_served_is_refused_by_its_name(model: Model, client: OpenAI) -> None:
    for endpoint, given in NOT_SERVED:
        with pytest.raises(openai.BadRequestError, match="is not served here") as refusal:
            ask(client, endpoint, **given)
        assert (refusal.value.code, refusal.value.param) == ("UNSUPPORTED_PARAMETER", next(iter(given)))
    assert model.asked == 0


def ask(client: OpenAI, endpoint: str, **given: Any) -> Any:
    if endpoint == "completions":
        return client.completions.create(**{**ASKED, **given})
    messages = [{"role": "user", "content": "hello"}]
    return client.chat.completions.create(**{"model": BASE, "messages": messages, **given})


def test_what_changes_nothing_is_ignored(model: Model, client: OpenAI) -> None:
    both = {"user": "ada", "logit_bias": {}, "presence_penalty": 0, "frequency_penalty": 0.0}
    assert ask(client, "completions", **both, best_of=1, echo=False, suffix="").choices[0].text == "ab"
    made = ask(
        client,
        "chat",
        **both,
        logprobs=False,
        metadata={"a": "b"},
        store=True,
        service_tier="auto",
        safety_identifier="x",
        prompt_cache_key="y",
        parallel_tool_calls=True,
        response_format={"type": "text"},
        tools=[],
        tool_choice="none",
        modalities=["text"],
    )
    assert made.choices[0].message.content == "ab"


def test_a_body_that_is_too_large_is_told_so(client: OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        client.completions.create(**{**ASKED, "prompt": "x" * 2_000_000})
    assert (refusal.value.status_code, refusal.value.code) == (413, "BODY_TOO_LARGE")
    assert refusal.value.response.headers["connection"] == "close"


# ------------------------------------------------------------------------------------------------ limits


def test_tokens_that_are_used_up_are_a_rate_limit_error_that_says_until_when(
    model: Model, ada: Person, client: OpenAI
) -> None:
    allow(ada, tokens_per_day=2 * MOST + 7)
    assert client.completions.create(**ASKED).usage.total_tokens == used(ada).tokens_today == 7
    for asked in ({"n": 3}, {"n": 3, "stream": True}, {"prompt": [PROMPT] * 3}):
        with pytest.raises(openai.RateLimitError) as refusal:
            client.completions.create(**{**ASKED, **asked})
        body = refusal.value.body
        assert (body["type"], body["code"], body["param"]) == ("insufficient_quota", "insufficient_quota", None)
        assert (body["quota"], body["limit"]) == ("tokensPerDay", 2 * MOST + 7)
        assert body["resetsAt"].endswith("T00:00:00+00:00")
        headers = refusal.value.response.headers
        assert 1 <= int(headers["retry-after"]) <= 86_400 and headers["ratelimit-limit"] == "1000000"
        assert (reserved(ada), used(ada).tokens_today) == ([], 7), "all choices, or none"
    assert model.asked == 1
    assert client.completions.create(**ASKED, n=2).usage.total_tokens == 14


def test_a_chat_reserves_its_bytes_and_what_its_form_may_take(model: Model, ada: Person, client: OpenAI) -> None:
    messages = [{"role": "user", "content": "größe"}]
    most = len("user") + len("größe".encode()) + 2 * 32 + 8
    for limit, is_enough in ((most - 1, False), (most, True)):
        allow(ada, tokens_per_day=limit)
        try:
            client.chat.completions.create(model=BASE, messages=messages, max_completion_tokens=8)
        except openai.RateLimitError:
            assert not is_enough
        else:
            assert is_enough
    assert model.asked == 1


def test_requests_are_counted_with_those_of_graphql(model: Model, ada: Person, client: OpenAI, settings: Any) -> None:
    settings.REQUESTS_PER_MINUTE = 4
    left = [client.models.with_raw_response.list().headers["ratelimit-remaining"]]
    assert ada.ask("{ __typename }") == {"data": {"__typename": "Query"}}
    left.append(client.completions.with_raw_response.create(**ASKED).headers["ratelimit-remaining"])
    with pytest.raises(openai.NotFoundError) as absent:
        client.models.retrieve("nobody:1")
    left.append(absent.value.response.headers["ratelimit-remaining"])
    assert left == ["3", "1", "0"]
    for _ in range(2):  # the second is remembered
        with pytest.raises(openai.RateLimitError) as refusal:
            client.completions.create(**ASKED)
        headers, body = refusal.value.response.headers, refusal.value.body
        assert headers["retry-after"] == headers["ratelimit-reset"] and headers["ratelimit-remaining"] == "0"
        assert (body["type"], body["code"]) == ("requests", "rate_limit_exceeded")
        assert (body["quota"], body["limit"], body["used"]) == ("requestsPerMinute", 4, 4)
    assert model.asked == 1


def test_nobody_has_more_than_so_many_answers_under_way(
    model: Model, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lapse, "MAX_CONNECTIONS", 0)
    with pytest.raises(openai.RateLimitError) as refusal:
        client.completions.create(**ASKED)
    assert (refusal.value.type, refusal.value.code) == ("requests", "TOO_MANY_CONNECTIONS")
    assert refusal.value.response.headers["retry-after"] == "1"
    assert model.asked == 0


# ------------------------------------------------------------------------------------------------ the inference server


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_a_server_that_cannot_answer_now_is_a_503_that_says_when(
    model: Model, ada: Person, client: OpenAI, settings: Any, streams: bool
) -> None:
    model.status, model.events = 503, [{"code": "QUEUE_FULL", "message": "Full.", "retry_after_s": 2}]
    with pytest.raises(openai.APIStatusError) as refusal:
        client.completions.create(**ASKED, stream=streams, n=2)
    assert isinstance(refusal.value, openai.InternalServerError)
    assert (refusal.value.status_code, refusal.value.response.headers["retry-after"]) == (503, "2")
    assert (refusal.value.type, refusal.value.code) == ("server_error", "QUEUE_FULL")
    settings.INFERENCE_URL = "http://127.0.0.1:9"
    with pytest.raises(openai.APIStatusError) as refusal:
        client.completions.create(**ASKED, stream=streams)
    assert (refusal.value.code, refusal.value.response.headers["retry-after"]) == ("INFERENCE_UNAVAILABLE", "5")
    assert (used(ada).tokens_today, reserved(ada)) == (0, [])


def test_the_package_tries_again_by_itself_when_told_when(model: Model, ada: Person, site: str) -> None:
    model.status, model.events = 503, [{"code": "QUEUE_FULL", "message": "Full.", "retry_after_s": 1}]
    with pytest.raises(openai.InternalServerError):
        client_of(ada, site, max_retries=1).completions.create(**ASKED)
    assert model.asked == 2


def test_a_stream_that_breaks_says_so_in_its_last_piece_and_takes_what_came_of_it(
    model: Model, ada: Person, client: OpenAI
) -> None:
    model.events = PIECES[:1]
    parts = iter(client.completions.create(**ASKED, stream=True))
    assert next(parts).choices[0].text == "a"
    with pytest.raises(openai.APIError) as refusal:
        next(parts)
    assert not isinstance(refusal.value, openai.APIStatusError)
    assert (refusal.value.code, refusal.value.type) == ("INFERENCE_UNAVAILABLE", "server_error")
    assert soon(lambda: (used(ada).tokens_today, reserved(ada)) == (5, []))


def test_what_is_our_own_fault_is_masked_and_found_in_the_log_by_the_requests_id(
    model: Model, client: OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    model.status, model.events = 500, [{"code": "NUMERICS", "message": "a secret of ours"}]
    with caplog.at_level(logging.ERROR), pytest.raises(openai.InternalServerError) as refusal:
        client.completions.create(**ASKED)
    assert (refusal.value.status_code, refusal.value.code) == (500, "INTERNAL")
    assert refusal.value.request_id is not None and refusal.value.request_id in refusal.value.body["message"]
    assert "a secret of ours" not in refusal.value.response.text
    assert any(refusal.value.request_id in record.getMessage() for record in caplog.records)


def test_a_database_that_is_away_is_a_503_and_no_fault_of_ours() -> None:
    refusal = worded(OperationalError("the server closed the connection"), "req_1")
    assert (refusal.status, refusal.headers) == (503, {"Retry-After": "5"})
    assert (refusal.content["error"]["type"], refusal.content["error"]["code"]) == ("server_error", "UNAVAILABLE")


def test_an_answer_that_takes_too_long_is_given_up(model: Model, ada: Person, client: OpenAI, settings: Any) -> None:
    settings.INFERENCE_TIMEOUT_S = 0.3
    model.hangs_after = 1
    with pytest.raises(openai.InternalServerError) as refusal:
        client.completions.create(**ASKED)
    assert (refusal.value.status_code, refusal.value.code) == (503, "INFERENCE_TIMEOUT")
    assert (used(ada).tokens_today, reserved(ada)) == (5, [])


def test_a_stream_ends_with_the_right_to_it(
    model: Model, ada: Person, client: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lapse, "LOOK_EVERY_S", 0.05)
    model.hangs_after = 1
    parts = iter(client.completions.create(**ASKED, stream=True))
    assert next(parts).choices[0].text == "a"
    with operator():
        RefreshToken.objects.all().delete()
    with pytest.raises(openai.APIError) as refusal:
        next(parts)
    assert refusal.value.code == "invalid_api_key"
    assert soon(lambda: (used(ada).tokens_today, reserved(ada)) == (5, []))


def test_a_stream_that_is_closed_takes_what_was_heard(model: Model, ada: Person, client: OpenAI) -> None:
    model.hangs_after = 1
    with client.completions.create(**ASKED, stream=True, n=2) as stream:
        parts = iter(stream)
        assert {next(parts).choices[0].index for _ in range(2)} == {0, 1}
    assert soon(lambda: (used(ada).tokens_today, reserved(ada)) == (10, []))


def test_somebody_removed_finds_nothing(model: Model, ada: Person, client: OpenAI) -> None:
    with operator():
        Membership.objects.all().delete()
    assert [each.id for each in client.models.list()] == [BASE]
    with pytest.raises(openai.PermissionDeniedError):
        client.completions.create(**ASKED)
