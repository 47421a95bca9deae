"""Bits per byte of the modules that were left out of training."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast, Starcoder2ForCausalLM

from training.pretraining.corpus import Document


@dataclass(frozen=True)
class Measurement:
    """The code length of some documents under a model."""

    bits_by_path: dict[str, float]
    bytes_by_path: dict[str, int]

    @property
    def bits_per_byte(self) -> float:
        """Total bits over total UTF-8 bytes, so that a long module counts for more than a short one."""
        return sum(self.bits_by_path.values()) / sum(self.bytes_by_path.values())

    def of(self, paths: Iterable[str]) -> "Measurement":
        """Return the measurement of these documents alone."""
        paths = list(paths)
        return Measurement({p: self.bits_by_path[p] for p in paths}, {p: self.bytes_by_path[p] for p in paths})


def measure(model: Starcoder2ForCausalLM, tokenizer: PreTrainedTokenizerFast, documents: list[Document]) -> Measurement:
    """Measure each document from its first token, after END_OF_TEXT, to the END_OF_TEXT that ends it."""
    return Measurement(
        bits_by_path={document.path: code_length_bits(model, tokenizer, document.text) for document in documents},
        bytes_by_path={document.path: document.size_bytes for document in documents},
    )


@torch.no_grad()
def code_length_bits(model: Starcoder2ForCausalLM, tokenizer: PreTrainedTokenizerFast, text: str) -> float:
    """Return -log2 of the probability of `text` and its END_OF_TEXT.

    The window of max_position_embeddings tokens moves on by half its length, and only what it had not covered before is
    counted: each token is predicted once, from at least half a window where the document has as much before it.
    """
    window = model.config.max_position_embeddings
    end = tokenizer.eos_token_id
    # The backend does not warn of texts longer than the context, as the wrapper does.
    ids = torch.tensor([end, *tokenizer.backend_tokenizer.encode(text).ids, end], device=model.device)
    was_training = model.training
    model.eval()
    nats, counted = 0.0, 0
    targets_total = len(ids) - 1
    for start in range(0, targets_total, window // 2):
        stop = min(start + window, targets_total)
        logits = model(ids[None, start:stop], use_cache=False).logits[0, counted - start :].float()
        nats += nn.functional.cross_entropy(logits, ids[counted + 1 : stop + 1], reduction="sum").item()
        counted = stop
        if counted == targets_total:
            break
    model.train(was_training)
    return nats / math.log(2)
