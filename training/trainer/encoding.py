"""From a row of a dataset version to token ids and labels, the same for training and for scoring.

A row is one of three, looked for in this order:

    prompt and completion   prompt + completion + end of text; the loss is on the completion and its end
    messages                a chat as the base model's chat template has it (chat.py); the loss is on what the assistant
                            says and the end of text after it
    text                    text + end of text; the loss is on all but the first token, which nothing predicts; in
                            training some with their middle at their end (fim.py)

Prompt and completion are tokenized apart, so that a prompt has the same tokens when the adapter is asked later.

A row of more than max_tokens is shortened, and counted: a prompt keeps its last max_tokens // 2 tokens or as many as
the completion leaves free, whichever is more; then everything is cut at max_tokens, and loses the end of text, since
it does not end there. A row without anything to learn from (an empty completion, a chat without an assistant or one that
the template refuses, nothing left after the cut) is dropped, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from training.trainer.chat import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from training.trainer.fim import FillInTheMiddle

IGNORED = -100
"""The label of a token without loss, as in torch's cross entropy."""
COLUMNS = ("prompt", "completion", "messages", "text")
"""What is read of a row; it may have other columns, and need not have all of these."""
_ROWS_AT_ONCE = 512


@dataclass(frozen=True)
class Example:
    """A row's token ids and, for each, its label: itself where the loss counts it, else IGNORED."""

    ids: list[int]
    labels: list[int]
    truncated: bool


class Examples:
    """Many rows' tokens in three flat arrays: 5 bytes a token instead of a Python object."""

    def __init__(self) -> None:
        self.ids: NDArray[np.int32] = np.empty(0, np.int32)
        self.supervised: NDArray[np.bool_] = np.empty(0, np.bool_)
        self.starts: NDArray[np.int64] = np.zeros(1, np.int64)
        self.truncated = 0
        self.dropped = 0
        self.first_refusal: str | None = None

    @classmethod
    def from_rows(
        cls,
        rows: Iterable[Mapping[str, Any]],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        fim: FillInTheMiddle | None = None,
    ) -> Examples:
        """Encode all rows, counting the truncated and the dropped. Raises ChatTemplateError."""
        made, chats = cls(), ChatFormat(tokenizer)
        ids: list[NDArray[np.int32]] = []
        supervised: list[NDArray[np.bool_]] = []
        for example in encode_all(rows, tokenizer, max_tokens, chats, fim):
            if example is None:
                made.dropped += 1
                continue
            made.truncated += example.truncated
            ids.append(np.asarray(example.ids, np.int32))
            supervised.append(np.asarray(example.labels) != IGNORED)
        if ids:
            made.ids, made.supervised = np.concatenate(ids), np.concatenate(supervised)
            made.starts = np.concatenate([[0], np.cumsum([len(row) for row in ids])])
        made.first_refusal = chats.first_refusal
        return made

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.starts)

    @property
    def supervised_tokens(self) -> int:
        return int(self.supervised.sum())

    def tokens_of(self, rows: NDArray[np.int64]) -> tuple[int, int]:
        """Return how many tokens some rows have, and how many of them the loss counts."""
        starts, ends = self.starts[rows], self.starts[rows + 1]
        counted = sum(int(self.supervised[start:end].sum()) for start, end in zip(starts, ends, strict=True))
        return int((ends - starts).sum()), counted

    def row(self, index: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Return the token ids of one row, and which of them the loss counts."""
        span = slice(self.starts[index], self.starts[index + 1])
        return self.ids[span], self.supervised[span]


def encode(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> Example | None:
    """Encode one row, or return None for one that has nothing to learn from."""
    return next(encode_all([row], tokenizer, max_tokens))


def encode_all(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    chats: ChatFormat | None = None,
    fim: FillInTheMiddle | None = None,
) -> Iterator[Example | None]:
    """Encode rows in their order; None stands for a dropped one. Raises ChatTemplateError."""
    chats = chats or ChatFormat(tokenizer)
    batch: list[list[tuple[str, bool]] | Example] = []
    for number, row in enumerate(rows):
        rearranged = fim.rearranged(row, number, max_tokens) if fim else None
        batch.append(rearranged or segments(row, chats))
        if len(batch) == _ROWS_AT_ONCE:
            yield from _encode_batch(batch, tokenizer, max_tokens)
            batch = []
    yield from _encode_batch(batch, tokenizer, max_tokens)


def segments(row: Mapping[str, Any], chats: ChatFormat) -> list[tuple[str, bool]]:
    """Return a row's text in pieces, each with whether the loss counts it; the end of text comes after the last."""
    prompt, completion, messages, text = (row.get(name) for name in COLUMNS)
    if completion is not None:
        return [(prompt or "", False), (completion, True)]
    if messages is not None:
        return chats.segments(json.loads(messages) if isinstance(messages, str) else messages)
    return [("", False), (text or "", True)]


def _encode_batch(
    batch: list[list[tuple[str, bool]] | Example], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> Iterator[Example | None]:
    texts = [text for row in batch if not isinstance(row, Example) for text, _ in row] or [""]
    # Tokenizing in one call uses the tokenizer's own threads and spares a call's overhead for each piece.
    tokens = iter(tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"])
    for row in batch:
        if isinstance(row, Example):
            yield row
            continue
        yield _join([(next(tokens), supervised) for _, supervised in row], tokenizer.eos_token_id, max_tokens)


def _join(pieces: list[tuple[list[int], bool]], end_of_text: int, max_tokens: int) -> Example | None:
    if not any(tokens for tokens, supervised in pieces if supervised):
        return None
    pieces = [*pieces, ([end_of_text], True)]
    total = sum(len(tokens) for tokens, _ in pieces)
    if total > max_tokens:
        prompt = pieces[0][0]
        room = max(max_tokens - (total - len(prompt)), max_tokens // 2)
        pieces[0] = (prompt[max(0, len(prompt) - room) :], False)
    ids = [token for tokens, _ in pieces for token in tokens][:max_tokens]
    labels = [token if supervised else IGNORED for tokens, supervised in pieces for token in tokens][:max_tokens]
    labels[0] = IGNORED
    if all(label == IGNORED for label in labels):
        return None
    return Example(ids, labels, truncated=total > max_tokens)
