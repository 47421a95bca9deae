"""One generation under way."""

from __future__ import annotations

from typing import Any

import torch

from inference.engine.request import FinishReason, GenerationRequest
from inference.engine.sampling import Sampler
from inference.engine.text import TextStream


class Sequence:
    """One generation under way: what it was asked, what it has so far, and its key-value cache."""

    def __init__(self, request: GenerationRequest, prompt: list[int], slot: int, text: TextStream, cache: Any) -> None:
        self.request = request
        self.slot = slot
        self.cache = cache
        self.unread = prompt  # tokens that the model has not seen yet: the prompt, then the newest token
        self.prompt_tokens = len(prompt)
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.text = ""
        self._stream = text
        self._sampler = Sampler(request)

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def add(self, logits: torch.Tensor, end_tokens: frozenset[int]) -> str:
        """Choose the next token from `logits` [vocabulary] and return the text that is now certain."""
        token = self._sampler.choose(logits)
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
