"""A chat that is to be answered has the tokens that the trainer gave chats: the base model's template, or the plain form."""

from __future__ import annotations

from typing import Any

import pytest

from inference.engine.engine import Engine
from inference.engine.errors import EngineError
from inference.engine.request import GenerationRequest
from training.trainer.chat import ChatFormat
from training.trainer.encoding import encode

CHAT = [
    {"role": "user", "content": "größe?"},
    {"role": "assistant", "content": "x"},
    {"role": "user", "content": "add"},
]
ANSWER = {"role": "assistant", "content": "b"}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def asked(messages: list[dict[str, str]], **more: Any) -> GenerationRequest:
    return GenerationRequest.from_json({"messages": messages, "max_new_tokens": 1, **more})


@pytest.fixture
def templated(engine: Engine, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Engine:
    monkeypatch.setattr(engine._tokenizer, "chat_template", request.param)
    monkeypatch.setattr(engine, "_chats", ChatFormat(engine._tokenizer))
    return engine


@pytest.mark.parametrize("templated", [None, TEMPLATE], indirect=True, ids=["plain", "templated"])
def test_what_is_asked_is_what_was_learned(templated: Engine) -> None:
    example = encode({"messages": [*CHAT, ANSWER]}, templated._tokenizer, 128)
    assert example is not None
    prompt = templated.encode_prompt(asked(CHAT))
    assert example.ids[: len(prompt)] == prompt
    answer = templated._tokenizer("b", add_special_tokens=False)["input_ids"]
    assert example.ids[len(prompt) :] == [*answer, templated._tokenizer.eos_token_id]


@pytest.mark.parametrize("templated", ["{{ raise_exception('Roles take turns.') }}"], indirect=True)
def test_a_chat_that_the_template_refuses_is_refused_by_its_name(templated: Engine) -> None:
    with pytest.raises(EngineError, match=r"refuses this chat: Roles take turns\.") as refusal:
        templated.encode_prompt(asked(CHAT))
    assert (refusal.value.code, refusal.value.field) == ("CHAT_TEMPLATE", "messages")


def test_a_chat_that_does_not_fit_is_told_by_its_messages(engine: Engine) -> None:
    with pytest.raises(EngineError) as refusal:
        engine.encode_prompt(asked([{"role": "user", "content": "x" * 1000}]))
    assert (refusal.value.code, refusal.value.field) == ("PROMPT_TOO_LONG", "messages")


@pytest.mark.parametrize(
    ("messages", "more", "field"),
    [
        ("hello", {}, "messages"),
        (["hello"], {}, "messages"),
        ([{"role": "user"}], {}, "messages[0].content"),
        ([CHAT[0], {"content": "x"}], {}, "messages[1].role"),
        ([{"role": "user", "content": "\ud800"}], {}, "messages[0].content"),
        (CHAT, {"prompt": "def"}, "messages"),
        (CHAT * 86, {}, "messages"),
        ([], {}, "prompt"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_chat_is_refused_by_its_place(messages: Any, more: dict[str, str], field: str) -> None:
    with pytest.raises(EngineError) as refusal:
        asked(messages, **more)
    assert (refusal.value.code, refusal.value.field) == ("INVALID", field)
