"""From rows to tokens and labels: what is counted by the loss, what is shortened, what is left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.trainer.encoding import IGNORED, Examples, encode


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Yes"},
    {"role": "user", "content": "Why"},
    {"role": "assistant", "content": "No"},
    {"role": "user", "content": "never answered"},
]
END = "<end>"
# Bytes that no merge joins, so that each is a token.
P, C = "0123456789", "ABCDEF"


@pytest.mark.parametrize(
    ("row", "max_tokens", "text", "counted", "truncated", "why"),
    [
        ({"prompt": P, "completion": C}, 32, P + C + END, C + END, False, "the completion and its end"),
        ({"prompt": None, "completion": C}, 32, C + END, C[1:] + END, False, "nothing predicts the first token"),
        ({"prompt": "", "completion": C, "text": "x"}, 32, C + END, C[1:] + END, False, "a completion goes first"),
        ({"text": C}, 32, C + END, C[1:] + END, False, "plain text but for its first token"),
        ({"prompt": P, "completion": C}, 17, P + C + END, C + END, False, "just fits"),
        ({"prompt": P, "completion": C}, 16, P[1:] + C + END, C + END, True, "the prompt's beginning goes first"),
        ({"prompt": P, "completion": C}, 10, P[5:] + C[:5], C[:5], True, "half stays; a cut has no end of text"),
        ({"prompt": P[:2], "completion": C}, 7, P[:2] + C[:5], C[:5], True, "a short prompt stays whole"),
        ({"text": P}, 4, P[:4], P[1:4], True, "text is cut at its end"),
        (
            {"messages": CHAT},
            128,
            f"### user\nHi\n\n### assistant\nYes\n\n### user\nWhy\n\n### assistant\nNo{END}",
            f"YesNo{END}",
            False,
            "the assistant's words, and the end after the last",
        ),
    ],
)
def test_what_a_row_becomes(
    row: dict[str, Any], max_tokens: int, text: str, counted: str, truncated: bool, why: str, tokenizer: Any
) -> None:
    example = encode(row, tokenizer, max_tokens)
    assert example is not None, why
    assert tokenizer.decode(example.ids) == text, why
    assert tokenizer.decode([label for label in example.labels if label != IGNORED]) == counted, why
    assert all(label in (IGNORED, token) for token, label in zip(example.ids, example.labels, strict=True))
    assert len(example.ids) <= max_tokens
    assert example.truncated is truncated


@pytest.mark.parametrize(
    ("row", "max_tokens", "why"),
    [
        ({"prompt": P, "completion": ""}, 32, "an empty completion"),
        ({"text": ""}, 32, "an empty text"),
        ({}, 32, "nothing at all"),
        ({"messages": CHAT[:1]}, 32, "a chat without an answer"),
        (
            {"messages": [{"role": "user", "content": P}, {"role": "assistant", "content": C}]},
            8,
            "cut before the answer",
        ),
    ],
)
def test_a_row_without_anything_to_learn_is_left_out(
    row: dict[str, Any], max_tokens: int, why: str, tokenizer: Any
) -> None:
    assert encode(row, tokenizer, max_tokens) is None, why


def test_a_chat_reads_the_same_as_json_text(tokenizer: Any) -> None:
    assert encode({"messages": json.dumps(CHAT)}, tokenizer, 128) == encode({"messages": CHAT}, tokenizer, 128)


def test_many_rows_are_the_single_ones_and_are_counted(tokenizer: Any) -> None:
    rows = [{"prompt": P * (i % 3), "completion": C * (i % 4), "text": None, "messages": None} for i in range(1_030)]
    examples = Examples.from_rows(rows, tokenizer, 20)
    single = [example for row in rows if (example := encode(row, tokenizer, 20))]
    assert len(examples) == len(single)
    assert examples.dropped == sum(i % 4 == 0 for i in range(1_030))
    assert examples.truncated == sum(example.truncated for example in single)
    for index in (0, 511, 512, len(single) - 1):
        ids, supervised = examples.row(index)
        assert ids.tolist() == single[index].ids
        assert supervised.tolist() == [label != IGNORED for label in single[index].labels]
    assert examples.lengths.sum() == len(examples.ids)


def test_no_rows_are_no_examples(tokenizer: Any) -> None:
    examples = Examples.from_rows([], tokenizer, 20)
    assert len(examples) == examples.supervised_tokens == examples.dropped == 0
