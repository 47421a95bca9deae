"""The choice of the next token."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import torch

from inference.engine.errors import EngineError
from inference.engine.request import GenerationRequest


class Sampler:
    """Chooses tokens for one sequence; its random numbers are its own, so nothing that runs beside it changes them."""

    def __init__(self, request: GenerationRequest, prompt: Iterable[int] = ()) -> None:
        self._temperature = request.temperature
        self._top_k = request.top_k
        self._top_p = request.top_p
        self._penalty = request.repetition_penalty
        self._seen = set(prompt)
        self._random = torch.Generator()  # on the CPU, so that a seed gives the same numbers on each device
        self._random.manual_seed(secrets.randbits(63) if request.seed is None else request.seed)

    @property
    def takes_the_best(self) -> bool:
        """Whether it always chooses the token with the largest logit."""
        return self._temperature == 0 and self._penalty == 1

    def choose(self, logits: torch.Tensor) -> int:
        """Return the id of the next token for `logits` of shape [vocabulary]. Raises EngineError NUMERICS."""
        logits = logits.cpu()
        best, token = logits.max(dim=-1)
        if not best.isfinite():
            raise not_finite()
        if self.takes_the_best:
            return int(token)
        # float64 and the maximum taken off first: no temperature, however small, makes an infinity of the best token
        chosen = self._choose(self._penalized(logits.double()))
        self._seen.add(chosen)
        return chosen

    def _penalized(self, logits: torch.Tensor) -> torch.Tensor:
        if self._penalty == 1 or not self._seen:
            return logits
        seen = torch.tensor(sorted(self._seen))
        theirs = logits[seen]
        logits[seen] = torch.where(theirs > 0, theirs / self._penalty, theirs * self._penalty)
        return logits

    def _choose(self, logits: torch.Tensor) -> int:
        if self._temperature == 0:
            return int(logits.argmax())
        if 0 < self._top_k < len(logits):
            # a stable sort, and not topk, which may take any of equal ones
            order = logits.sort(descending=True, stable=True).indices[self._top_k :]
            logits[order] = -torch.inf
        probabilities = torch.softmax((logits - logits.max()) / self._temperature, dim=-1)
        if self._top_p < 1:
            ordered, tokens = probabilities.sort(descending=True, stable=True)
            ordered[ordered.cumsum(-1) - ordered >= self._top_p] = 0
            return int(tokens[torch.multinomial(ordered, 1, generator=self._random)])
        return int(torch.multinomial(probabilities, 1, generator=self._random))


def not_finite() -> EngineError:
    return EngineError("NUMERICS", "The model computed a number that is not finite.")
