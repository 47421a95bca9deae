"""One generation under way."""

from __future__ import annotations

import torch

from inference.engine.pages import Lease
from inference.engine.request import FinishReason, GenerationRequest
from inference.engine.sampling import Sampler
from inference.engine.text import TextStream


class Sequence:
    """One generation under way: what it was asked, what it has so far, and where its keys and values are.

    It first reads its prompt, part by part; the last part gives its first token. From then on it decodes.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt: list[int],
        unread: list[int],
        slot: int,
        text: TextStream,
        lease: Lease,
    ) -> None:
        """`unread` is what the model is to read at first: the prompt, where it has any tokens."""
        self.request = request
        self.slot = slot
        self.lease = lease
        self.unread = unread
        """Tokens that the model has not seen yet: the prompt's, then the newest one."""
        self.read = 0
        """Tokens whose keys and values are kept."""
        self.prompt_tokens = len(prompt)
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.text = ""
        self.logprobs: list[float] | None = [] if request.logprobs else None
        self.sampler = Sampler(request, prompt)
        self._stream = text

    @property
    def is_reading(self) -> bool:
        return self.completion_tokens == 0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def seen(self, count: int) -> None:
        """The model has read `count` of the unread tokens."""
        self.read += count
        self.unread = self.unread[count:]

    def add(self, token: int, logits: torch.Tensor, end_tokens: frozenset[int]) -> str:
        """Take the next token, chosen from `logits` [vocabulary]; return the text that is now certain."""
        if self.logprobs is not None:
            self.logprobs.append(float(logits.double().log_softmax(-1)[token]))
        self.completion_tokens += 1
        self.unread = [token]
        piece = "" if token in end_tokens else self._stream.push(token)
        if token in end_tokens or self._stream.stopped:
            self.finish_reason = FinishReason.STOP
        elif self.completion_tokens >= self.request.max_new_tokens:
            self.finish_reason = FinishReason.LENGTH
        if self.finish_reason is not None:
            piece += self._stream.close()
        self.text += piece
        return piece

    def cancel(self) -> str:
        """End now and return the text that was held back."""
        self.finish_reason = FinishReason.CANCELLED
        piece = self._stream.close()
        self.text += piece
        return piece
