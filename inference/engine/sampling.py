"""The choice of the next token."""

from __future__ import annotations

import secrets

import torch

from inference.engine.errors import EngineError
from inference.engine.request import GenerationRequest


class Sampler:
    """Chooses tokens for one sequence; its random numbers are its own, so nothing that runs beside it changes them."""

    def __init__(self, request: GenerationRequest) -> None:
        self._temperature = request.temperature
        self._top_p = request.top_p
        self._random = torch.Generator()  # on the CPU, so that a seed gives the same numbers on each device
        self._random.manual_seed(secrets.randbits(63) if request.seed is None else request.seed)

    def choose(self, logits: torch.Tensor) -> int:
        """Return the id of the next token for `logits` of shape [vocabulary]. Raises EngineError NUMERICS."""
        logits = logits.cpu()
        best, token = logits.max(dim=-1)
        if not best.isfinite():
            raise EngineError("NUMERICS", "The model computed a number that is not finite.")
        if self._temperature == 0:
            return int(token)
        # float64 and the maximum taken off first: no temperature, however small, makes an infinity of the best token
        logits = logits.double()
        probabilities = torch.softmax((logits - logits.max()) / self._temperature, dim=-1)
        if self._top_p < 1:
            ordered, tokens = probabilities.sort(descending=True, stable=True)
            ordered[ordered.cumsum(-1) - ordered >= self._top_p] = 0
            return int(tokens[torch.multinomial(ordered, 1, generator=self._random)])
        return int(torch.multinomial(probabilities, 1, generator=self._random))
