"""What is asked of the engine, what comes back, and the limits of both."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from inference.engine.errors import invalid

MAX_STOP_STRINGS = 16
MAX_STOP_CHARACTERS = 100
MAX_SCORED_ROWS = 1000
MAX_MESSAGES = 256
"""Of a chat: a template renders it once more for each answer in it."""
PENALTIES = (0.1, 10.0)


class FinishReason(StrEnum):
    STOP = "STOP"
    LENGTH = "LENGTH"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class GenerationRequest:
    """One continuation of a prompt. Raises EngineError INVALID, naming the field, for what cannot be used."""

    prompt: str
    max_new_tokens: int = 128
    """At most this many tokens are generated, the end-of-text token included."""
    temperature: float = 0.0
    """0 takes the most likely token each time; otherwise logits are divided by it before sampling."""
    top_p: float = 1.0
    """Samples from the fewest tokens whose probabilities add up to at least this."""
    seed: int | None = None
    """The same seed gives the same text; without one each answer is its own."""
    stop: tuple[str, ...] = ()
    """Generation ends where one of these appears in the generated text, which then ends before it."""
    top_k: int = 0
    """Samples from this many tokens, the most likely ones; 0 from all. It is applied before top_p."""
    repetition_penalty: float = 1.0
    """Logits of tokens that are in the prompt or the answer are divided by it where they are positive, and multiplied
    where they are negative (Keskar et al., CTRL, 2019). 1 changes nothing."""
    logprobs: bool = False
    """Whether each token's log-probability is told (nats), as the model alone sees it: before temperature, penalty, and
    cuts."""
    messages: tuple[Mapping[str, str], ...] = ()
    """A chat to answer, each message with its role and content, in the place of a prompt: its form is the trainer's."""

    def __post_init__(self) -> None:
        _check_text("prompt", self.prompt)
        if self.messages and self.prompt:
            raise invalid("messages", "Send a prompt or messages, not both.")
        if len(self.messages) > MAX_MESSAGES:
            raise invalid(
                "messages", f"{len(self.messages)} messages are too many; at most {MAX_MESSAGES} are possible."
            )
        _check_integer("max_new_tokens", self.max_new_tokens)
        if self.max_new_tokens < 1:
            raise invalid("max_new_tokens", f"Ask for at least 1 new token, not {self.max_new_tokens}.")
        _check_number("temperature", self.temperature)
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise invalid("temperature", f"The temperature should be 0 or a positive number, not {self.temperature}.")
        _check_number("top_p", self.top_p)
        if not 0 < self.top_p <= 1:  # NaN fails every comparison
            raise invalid("top_p", f"Top-p should be above 0 and at most 1, not {self.top_p}.")
        _check_integer("top_k", self.top_k)
        if not 0 <= self.top_k < 2**31:
            raise invalid("top_k", "Top-k should be 0, for all tokens, or the number of those to choose from.")
        _check_number("repetition_penalty", self.repetition_penalty)
        least, most = PENALTIES
        if not least <= self.repetition_penalty <= most:
            raise invalid(
                "repetition_penalty",
                f"The repetition penalty should be from {least} to {most}, not {self.repetition_penalty}.",
            )
        if not isinstance(self.logprobs, bool):
            raise invalid("logprobs", "This should be true or false.")
        if self.seed is not None:
            _check_integer("seed", self.seed)
            if not -(2**63) <= self.seed < 2**63:
                raise invalid("seed", "The seed should be a whole number of at most 64 bits.")
        if len(self.stop) > MAX_STOP_STRINGS:
            raise invalid(
                "stop", f"{len(self.stop)} stop strings are too many; at most {MAX_STOP_STRINGS} are possible."
            )
        for index, text in enumerate(self.stop):
            _check_text(f"stop[{index}]", text)
            if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
                raise invalid(
                    f"stop[{index}]",
                    f"A stop string should have 1 to {MAX_STOP_CHARACTERS} characters, not {len(text)}.",
                )

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> GenerationRequest:
        """Read the fields of a decoded JSON object; null and absent mean the default, other keys are ignored."""
        messages = body.get("messages") or []
        _check_messages("messages", messages)
        if body.get("prompt") is None and not messages:
            raise invalid("prompt", "There is no prompt.")
        given = {
            name: body[name]
            for name in (
                *("prompt", "max_new_tokens", "temperature", "top_p", "seed"),
                *("top_k", "repetition_penalty", "logprobs"),
            )
            if body.get(name) is not None
        }
        stop = body.get("stop") or []
        if not isinstance(stop, list):
            raise invalid("stop", "The stop strings should be a list.")
        return cls(**{"prompt": "", **given}, stop=tuple(stop), messages=tuple(messages))


@dataclass(frozen=True)
class Prediction:
    """A finished generation; `completion_tokens` counts all that was computed, the end of text and cut text, too."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    adapter_digest: str | None
    base_model: str
    seconds: float
    logprobs: tuple[float, ...] | None = None
    """Of each of the completion's tokens, where they were asked for."""

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "logprobs" or value is not None}


@dataclass(frozen=True)
class Chunk:
    """A piece of text as it is generated, numbered from 1; the last one carries the whole prediction."""

    sequence: int
    text: str
    tokens: int
    """Computed by then: the prompt's, and those of the answer, text that is held back included."""
    prediction: Prediction | None = None
    logprobs: tuple[float, ...] | None = None
    """Of the tokens that were computed since the chunk before, where they were asked for."""

    def to_json(self) -> dict[str, Any]:
        chunk: dict[str, Any] = {"sequence": self.sequence, "text": self.text, "tokens": self.tokens}
        if self.logprobs is not None:
            chunk["logprobs"] = list(self.logprobs)
        return chunk if self.prediction is None else {**chunk, "prediction": self.prediction.to_json()}


@dataclass(frozen=True)
class RowScore:
    """The cross-entropy (nats) summed over a row's supervised tokens, and their number; 0 and 0 where it has none."""

    loss_sum: float
    tokens: int


@dataclass(frozen=True)
class Score:
    """`loss` is the mean over all supervised tokens of all rows, as the trainer reports it; null without any."""

    rows: tuple[RowScore, ...]
    adapter_digest: str | None
    base_model: str
    seconds: float

    @property
    def tokens(self) -> int:
        return sum(row.tokens for row in self.rows)

    @property
    def loss(self) -> float | None:
        return sum(row.loss_sum for row in self.rows) / self.tokens if self.tokens else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "loss": self.loss, "tokens": self.tokens}


def check_row(field: str, row: object) -> None:
    """Raise EngineError INVALID for what is no row to score: an object with text or null in the trainer's columns."""
    if not isinstance(row, dict):
        raise invalid(field, "A row should be an object.")
    for name in ("prompt", "completion", "text"):
        if row.get(name) is not None:
            _check_text(f"{field}.{name}", row[name])
    messages = row.get("messages")
    if messages is None:
        return
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError):
            raise invalid(f"{field}.messages", "These messages are no JSON.") from None
    _check_messages(f"{field}.messages", messages)


def _check_messages(field: str, messages: object) -> None:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise invalid(field, "This should be a list of messages.")
    for index, message in enumerate(messages):
        for name in ("role", "content"):
            _check_text(f"{field}[{index}].{name}", message.get(name))


def _check_text(field: str, text: object) -> None:
    if not isinstance(text, str):
        raise invalid(field, "This should be a string.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise invalid(field, f"Character {error.start + 1} is half of a surrogate pair, which no text has.") from None


def _check_integer(field: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise invalid(field, "This should be a whole number.")


def _check_number(field: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise invalid(field, "This should be a number.")
    try:
        float(value)
    except OverflowError:
        raise invalid(field, "This number is too large.") from None
