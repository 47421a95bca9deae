"""The loss at the counted positions, without ever holding the logits of all of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from training.trainer.batches import Batch

LOGITS_AT_ONCE = 8_388_608
"""Logits in memory at a time: 32 MiB in float32. Fewer stay in the caches of a CPU, but their products are too thin for it."""


def loss_sum(model: Any, batch: Batch) -> torch.Tensor:
    """Return the sum of the cross entropies (nats) of the batch's counted tokens.

    Runs the model's trunk over all tokens, and its output layer only where a counted token is predicted.
    """
    hidden = model.get_decoder()(
        input_ids=batch.ids,
        position_ids=batch.positions,
        document_lengths=batch.lengths,
        use_cache=False,
    ).last_hidden_state[0]
    total: torch.Tensor = _CrossEntropySum.apply(
        hidden.index_select(0, batch.predicting), model.get_output_embeddings(), batch.targets
    )
    return total


class _CrossEntropySum(torch.autograd.Function):
    """The output layer is frozen, so the gradient of its input is known as soon as its logits are: no second pass."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, output_layer: nn.Linear, targets: torch.Tensor) -> torch.Tensor:
        weight = output_layer.weight
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        total = hidden.new_zeros((), dtype=torch.float32)
        rows = _rows_at_once(len(targets), weight.shape[0])
        for start in range(0, len(targets), rows):
            span = slice(start, start + rows)
            target = targets[span, None]
            logits = nn.functional.linear(hidden[span], weight, output_layer.bias).float()
            # In place from here on: the logits are the largest thing there is, and passes over them cost most.
            logits -= logits.amax(dim=-1, keepdim=True)
            target_logits = logits.gather(1, target)
            normalizer = logits.exp_().sum(dim=-1, keepdim=True)
            total += (normalizer.log() - target_logits).sum()
            if gradient is not None:
                probabilities = logits.div_(normalizer)
                probabilities.scatter_add_(1, target, torch.full_like(target_logits, -1))
                torch.matmul(probabilities.to(weight.dtype), weight, out=gradient[span])
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        return ctx.gradient * gradients[0].to(ctx.gradient.dtype), None, None


def _rows_at_once(rows: int, vocabulary: int) -> int:
    """As many as LOGITS_AT_ONCE allows, but no last few by themselves: a thin product takes nearly as long as a wide one."""
    parts = math.ceil(rows * vocabulary / LOGITS_AT_ONCE)
    return max(1, math.ceil(rows / max(1, parts)))
