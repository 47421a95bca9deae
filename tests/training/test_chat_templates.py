"""Chats as the base model's own template has them: what is learned of them, what is asked, and templates that cannot be used."""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from training.trainer.chat import ChatFormat, ChatTemplateError
from training.trainer.encoding import IGNORED, Examples, encode

RunTrainer = Callable[..., Path]
ResultOf = Callable[[Path], dict[str, Any]]
EventsOf = Callable[[Path, str], list[dict[str, Any]]]

INVITES = "{% if add_generation_prompt %}[assistant]{% endif %}"
TEMPLATE = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}<end>\n{% endfor %}" + INVITES
WITHOUT_END = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }};{% endfor %}" + INVITES
IN_TURNS = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles have to take turns.') }}{% endif %}{% endfor %}" + TEMPLATE
)
REWRITES = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] if loop.last else '...' }}<end>\n{% endfor %}" + INVITES
)


def said(*contents: str, roles: Sequence[str] = ("user", "assistant")) -> list[dict[str, str]]:
    return [{"role": roles[i % len(roles)], "content": content} for i, content in enumerate(contents)]


CHAT = said("Hi", " Yes ", "Why", "No", "never answered")


@pytest.fixture
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


@pytest.mark.parametrize(
    ("template", "text", "counted"),
    [
        (TEMPLATE, "[user]Hi<end>\n[assistant]Yes<end>\n[user]Why<end>\n[assistant]No<end>", "Yes<end>No<end>"),
        (WITHOUT_END, "[user]Hi;[assistant] Yes ;[user]Why;[assistant]No;<end>", " Yes ;No;<end>"),
        (
            None,
            "### user\nHi\n\n### assistant\n Yes \n\n### user\nWhy\n\n### assistant\nNo<end>",
            " Yes No<end>",
        ),
    ],
)
def test_what_a_chat_becomes(template: str | None, text: str, counted: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    example = encode({"messages": CHAT}, tokenizer, 128)
    assert example is not None
    assert tokenizer.decode(example.ids) == text
    assert tokenizer.decode([label for label in example.labels if label != IGNORED]) == counted


@pytest.mark.parametrize("template", [TEMPLATE, WITHOUT_END, IN_TURNS, None])
def test_what_is_asked_has_the_tokens_that_were_learned(template: str | None, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    example = encode({"messages": CHAT}, tokenizer, 128)
    assert example is not None
    chats = ChatFormat(tokenizer)
    for answered in (1, 3):
        pieces = chats.prompt_pieces(CHAT[:answered])
        tokens = [token for ids in tokenizer(pieces, add_special_tokens=False)["input_ids"] for token in ids]
        assert example.ids[: len(tokens)] == tokens
        assert example.labels[len(tokens)] == example.ids[len(tokens)]  # and there its answer begins
        assert example.labels[len(tokens) - 1] == IGNORED


def test_an_answer_that_nothing_came_before_is_not_learned(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    roles = ("assistant", "user")
    example = encode({"messages": said("Welcome", "Hi", "Yes", roles=roles)}, tokenizer, 128)
    assert example is not None
    assert tokenizer.decode(example.ids) == "[assistant]Welcome<end>\n[user]Hi<end>\n[assistant]Yes<end>"
    assert tokenizer.decode([label for label in example.labels if label != IGNORED]) == "Yes<end>"
    assert encode({"messages": said("Welcome", "Hi", roles=roles)}, tokenizer, 128) is None
    assert encode({"messages": said("Hi", "")}, tokenizer, 128) is None


def test_a_chat_that_the_template_refuses_is_left_out_and_the_reason_is_kept(tokenizer: Any) -> None:
    tokenizer.chat_template = IN_TURNS
    refused = said("Hi", "Hello?", "Yes", roles=("user", "user", "assistant"))
    examples = Examples.from_rows([{"messages": CHAT}, {"messages": refused}], tokenizer, 128)
    assert (len(examples), examples.dropped, examples.first_refusal) == (1, 1, "Roles have to take turns.")
    with pytest.raises(ChatTemplateError, match=r"refuses this chat: Roles have to take turns\."):
        ChatFormat(tokenizer).prompt_pieces(refused)


def test_of_several_refusals_the_first_is_kept(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('Not ' + messages[0]['content']) }}"
    examples = Examples.from_rows([{"messages": said(each, "Yes")} for each in ("one", "two")], tokenizer, 128)
    assert (len(examples), examples.dropped, examples.first_refusal) == (0, 2, "Not one")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in messages %}", "fails"),
        ("{{ messages[0].content.nothing.there }}", "fails"),
        ("{{ 1 / 0 }}", "fails"),
        ("{{ ''.__class__.__mro__ }}", "fails: access to attribute '__class__' of 'str' object is unsafe"),
        ("{{ messages.append(1) }}", "fails: access to attribute .append. of .list. object is unsafe"),
        (REWRITES, "cannot be told apart"),
        ("{{ strftime_now('%d %b %Y') }}" + TEMPLATE, "the present date"),
        ({"tool_use": TEMPLATE}, "no default"),
    ],
)
def test_a_template_that_cannot_be_used_says_why(template: Any, why: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    with pytest.raises(ChatTemplateError, match=why):
        encode({"messages": CHAT}, tokenizer, 128)
    assert encode({"prompt": "a", "completion": "b"}, tokenizer, 128) is not None  # other rows need none


@pytest.fixture
def chat_orders(orders: dict[str, Any], tiny_base: Path, tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """A run of two steps over chats, some of which do not take turns, with a base model that has a template."""

    def make(template: str) -> dict[str, Any]:
        base = tmp_path / "templated"
        shutil.copytree(tiny_base, base)
        (base / "chat_template.jinja").write_text(template)
        rows = [{"messages": said(f"{i} and {i}?", str(2 * i), "Sure?", "Yes")} for i in range(8)]
        rows.append({"messages": said("Hi", "Hello?", "Yes", roles=("user", "user", "assistant"))})
        path = tmp_path / "chats.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        config = orders["config"] | {"max_steps": 2}
        return {
            **orders,
            "base_model": {**orders["base_model"], "path": str(base)},
            "data": {name: [str(path)] for name in ("train", "validation", "test")},
            "config": config,
        }

    return make


def test_a_run_over_chats_tells_the_template_and_what_it_refuses(
    chat_orders: Any, run_trainer: RunTrainer, result_of: ResultOf, events_of: EventsOf
) -> None:
    folder = run_trainer(chat_orders(IN_TURNS))
    result = result_of(folder)
    digest = hashlib.sha256(IN_TURNS.encode()).hexdigest()
    assert (result["status"], result["chat_template_sha256"], result["test_rows"]) == ("succeeded", digest, 8)
    assert f"| chat_template_sha256 | {digest} |" in (folder / "adapter/README.md").read_text()
    prompts = [event["prompt"] for event in events_of(folder, "SampleGenerated")]
    assert prompts[0] == "[user]0 and 0?\n[assistant]"
    warnings = [event["text"] for event in events_of(folder, "LogLine") if event["level"] == "WARNING"]
    assert warnings == [
        f"{split}: the base model's chat template refuses some chats, which are among those left out; of the first it "
        "says: Roles have to take turns."
        for split in ("train", "validation", "test")
    ]


def test_a_run_with_a_template_that_cannot_be_used_fails_typed(
    chat_orders: Any, run_trainer: RunTrainer, result_of: ResultOf
) -> None:
    folder = run_trainer(chat_orders(REWRITES))
    result = result_of(folder)
    assert (result["status"], result["code"]) == ("failed", "CHAT_TEMPLATE")
    assert "prompt and completion" in result["message"]
    assert not (folder / "adapter").exists()
