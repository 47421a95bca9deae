"""How a chat becomes text: as the base model's own chat template says, or plainly where it has none.

The template is the one in the base model's tokenizer, a Jinja program that runs in transformers' sandbox, over the whole
chat. What the assistant says is found by rendering the chat up to each answer, with the template's invitation to give
one, and up to the answer's end: the two must be beginnings of the whole, or the template cannot be trained with. An
answer goes on to the end-of-text token that the template ends it with, which the model learns to write. An answer that
nothing came before, at the very beginning of a chat, is not learned.

The plain form is "### role\\ncontent\\n\\n" for each message, and "### assistant\\n" is the invitation.

Both are pieces of text that are tokenized one by one, in training as in inference, so that what was learned is what is
asked: `prompt_pieces` are those of a chat that the model is to answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
ASSISTANT = "assistant"


class ChatTemplateError(Exception):
    """The base model's chat template cannot be used; the message says why."""


class _Refused(Exception):
    """The template refuses this chat, as some do where roles do not take turns."""


class ChatFormat:
    """The form of chats for one tokenizer; without any, the plain one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase | None) -> None:
        self._tokenizer = tokenizer
        self.first_refusal: str | None = None
        """What the template said of the first chat that it refused."""
        self._template, self._problem = _template_of(tokenizer)

    @property
    def template_sha256(self) -> str | None:
        """The template's sha256 in hex; None for the plain form."""
        return None if self._template is None else hashlib.sha256(self._template.encode()).hexdigest()

    def segments(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """Return a chat's pieces up to the assistant's last word, each with whether the loss counts it.

        The end of text comes after the last. Empty where there is no answer, or the template refuses the chat.
        Raises ChatTemplateError.
        """
        self._require_template()
        last = max((i for i, message in enumerate(messages) if message["role"] == ASSISTANT), default=-1)
        answered = messages[: last + 1]
        if not any(message["content"] for message in answered if message["role"] == ASSISTANT):
            return []
        if self._template is None:
            return list(_plain(answered))
        try:
            return list(self._templated(answered))
        except _Refused as refusal:
            self.first_refusal = self.first_refusal or str(refusal)
            return []

    def prompt_pieces(self, messages: Sequence[Message]) -> list[str]:
        """Return what the model continues as the assistant's answer to these messages; joined, it is the prompt.

        Raises ChatTemplateError, also for a chat that the template refuses.
        """
        self._require_template()
        if self._template is None:
            closed = [
                piece for message in messages for piece in (f"### {message['role']}\n", message["content"], "\n\n")
            ]
            return [*closed, f"### {ASSISTANT}\n"]
        try:
            whole = self._rendered(messages, invites=True)
            answers = self._answers(messages, whole)
        except _Refused as refusal:
            raise ChatTemplateError(f"The base model's chat template refuses this chat: {refusal}") from refusal
        return [text for text, _ in _cut(whole, answers)]

    def _require_template(self) -> None:
        """Not before there is a chat: other rows need no template."""
        if self._problem is not None:
            raise ChatTemplateError(self._problem)

    def _templated(self, messages: Sequence[Message]) -> list[tuple[str, bool]]:
        """The pieces of a chat that ends with an answer; the last is that answer, without the end of text."""
        whole = self._rendered(messages, invites=False)
        answers = self._answers(messages, whole)
        if not answers:
            return []
        *pieces, (last, _) = _cut(whole[: answers[-1][1]], answers)
        return [*pieces, (last.removesuffix(self._end_of_text), True)]

    def _answers(self, messages: Sequence[Message], whole: str) -> list[tuple[int, int]]:
        """Where in a chat's text the answers, each with the end-of-text token that ends it, begin and end."""
        found: list[tuple[int, int]] = []
        for position, message in enumerate(messages):
            if message["role"] != ASSISTANT or position == 0:
                continue
            before = self._rendered(messages[:position], invites=True)
            after = self._rendered(messages[: position + 1], invites=False)
            if not (whole.startswith(after) and after.startswith(before) and len(before) >= (found or [(0, 0)])[-1][1]):
                raise ChatTemplateError(
                    "The base model's chat template writes a chat differently as it goes on, so that what the assistant "
                    "said cannot be told apart. Use rows of prompt and completion instead."
                )
            ends_at = after.find(self._end_of_text, len(before))
            found.append((len(before), len(after) if ends_at < 0 else ends_at + len(self._end_of_text)))
        return found

    @property
    def _end_of_text(self) -> str:
        assert self._tokenizer is not None
        return str(self._tokenizer.eos_token)

    def _rendered(self, messages: Sequence[Message], *, invites: bool) -> str:
        from jinja2 import TemplateError

        assert self._tokenizer is not None
        chat = [{"role": message["role"], "content": message["content"]} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=invites)
        except Exception as error:  # a template is a program, and raises what it likes
            if type(error) is TemplateError:  # what its own raise_exception raises
                raise _Refused(str(error)) from error
            raise ChatTemplateError(f"The base model's chat template fails: {error}") from error
        return str(text)


def _template_of(tokenizer: PreTrainedTokenizerBase | None) -> tuple[str | None, str | None]:
    """Return the tokenizer's template, if it has one, and why no chat could be trained with it, if that is so."""
    if tokenizer is None or not tokenizer.chat_template:
        return None, None
    try:
        template = str(tokenizer.get_chat_template())
    except ValueError as error:
        return None, f"The base model has several chat templates, and no default: {error}"
    if "strftime_now" in template:
        return template, (
            "The base model's chat template writes the present date into each chat, so that no run could be repeated. "
            "Use rows of prompt and completion instead."
        )
    return template, None


def _plain(messages: Sequence[Message]) -> Iterator[tuple[str, bool]]:
    for position, message in enumerate(messages):
        yield f"### {message['role']}\n", False
        yield message["content"], message["role"] == ASSISTANT
        if position < len(messages) - 1:
            yield "\n\n", False


def _cut(whole: str, answers: Sequence[tuple[int, int]]) -> list[tuple[str, bool]]:
    """A text in pieces, each with whether it is one of the answers."""
    pieces, at = [], 0
    for start, end in answers:
        pieces += [(whole[at:start], False), (whole[start:end], True)]
        at = end
    return [*pieces, (whole[at:], False)] if at < len(whole) else pieces
