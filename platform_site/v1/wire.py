"""Answers as OpenAI's clients read them, whole and in pieces."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

FINISHED = {"STOP": "stop", "LENGTH": "length", "CANCELLED": "stop"}

Prediction = Mapping[str, Any]


class Form(Protocol):
    """What completions and chats have each in a form of its own."""

    prefix: str
    whole: str
    part: str
    opens: bool
    """Whether each choice begins with a piece that says who speaks."""

    def choice(self, text: str) -> dict[str, Any]: ...

    def piece(self, text: str | None) -> dict[str, Any]: ...


class Completion:
    prefix, whole, part, opens = "cmpl", "text_completion", "text_completion", False

    def choice(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def piece(self, text: str | None) -> dict[str, Any]:
        return {"text": text or ""}


class Chat:
    prefix, whole, part, opens = "chatcmpl", "chat.completion", "chat.completion.chunk", True

    def choice(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def piece(self, text: str | None) -> dict[str, Any]:
        return {"delta": {} if text is None else {"content": text}}


@dataclass(frozen=True)
class Wire:
    """One answer: everything that is said of it has the same id, time, and model."""

    form: Form
    model: str
    fingerprint: str | None
    """The digest of the adapter that answers."""
    counts: bool = False
    """Whether a stream ends with its usage."""
    id: str = field(default_factory=lambda: uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, predictions: list[Prediction]) -> dict[str, Any]:
        choices = [
            _choice(index, self.form.choice(prediction["text"]), FINISHED[prediction["finish_reason"]])
            for index, prediction in enumerate(predictions)
        ]
        return {**self._head(self.form.whole), "choices": choices, "usage": usage(predictions)}

    def pieces(self, index: int, chunk: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        """What is said of one choice with a piece of its text; with the last one that it has ended, and why."""
        if chunk["sequence"] == 1 and self.form.opens:
            yield self._part([_choice(index, {"delta": {"role": "assistant", "content": ""}}, None)])
        if chunk["text"]:
            yield self._part([_choice(index, self.form.piece(chunk["text"]), None)])
        if (prediction := chunk.get("prediction")) is not None:
            yield self._part([_choice(index, self.form.piece(None), FINISHED[prediction["finish_reason"]])])

    def end(self, predictions: list[Prediction]) -> Iterable[dict[str, Any]]:
        if self.counts:
            yield {**self._part([]), "usage": usage(predictions)}

    def _part(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        part = {**self._head(self.form.part), "choices": choices}
        return {**part, "usage": None} if self.counts else part

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"{self.form.prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage(predictions: list[Prediction]) -> dict[str, int]:
    """As it was settled: each choice reads its prompt."""
    prompt = sum(prediction["prompt_tokens"] for prediction in predictions)
    completion = sum(prediction["completion_tokens"] for prediction in predictions)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _choice(index: int, said: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": index, **said, "logprobs": None, "finish_reason": finish_reason}
