"""The model, its slots, and the two things it does: add a token to a sequence, and score a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, DynamicCache

from inference.engine.adapters import AdapterLimits, LayerShape
from inference.engine.errors import EngineError, invalid
from inference.engine.request import FinishReason, GenerationRequest, Prediction, RowScore
from inference.engine.sequence import Sequence
from inference.engine.slots import Routing, SlotTable, install_slots
from inference.engine.text import TextStream, Vocabulary
from training.trainer.chat import ChatTemplateError
from training.trainer.config import Quantization
from training.trainer.encoding import IGNORED, Example, encode_all
from training.trainer.quantization import load_base

LOGITS_AT_ONCE = 4_194_304
"""Logits in memory at a time while a row is scored."""
WIDTH_WORTH_THREADS = 1024
"""A narrower model's products for one token are over before a second thread has begun: on two busy cores, two threads
took eight times as long as one."""


@dataclass(frozen=True)
class EngineConfig:
    """How one base model is held."""

    base_model: str
    """The name that tickets and adapters call it by."""
    path: Path
    """A folder with config.json, model.safetensors, and tokenizer.json."""
    device: str = "auto"
    """cpu, cuda, or auto: an accelerator where there is one."""
    quantization: Quantization = Quantization.NF4
    slots: int = 8
    """Adapters that are in the model at a time."""
    max_rank: int = 256
    """The largest LoRA rank that a slot takes; memory is set aside for it."""
    threads: int | None = None
    """CPU threads of torch; none means one for a small model, and for others what torch chooses."""


class Engine:
    """One quantized base model with slots for adapters.

    `encode_prompt` and `encode_rows` may be called from any thread; everything that touches the model belongs to one.
    """

    def __init__(self, config: EngineConfig) -> None:
        """Load the base model. Raises BaseModelError where the folder does not hold one."""
        self.config = config
        self.device = torch.device(_device(config.device))
        self._model = load_base(config.path, config.quantization, self.device)
        if config.threads or self._model.config.hidden_size < WIDTH_WORTH_THREADS:
            torch.set_num_threads(config.threads or 1)
        self._tokenizer = AutoTokenizer.from_pretrained(config.path, local_files_only=True, trust_remote_code=False)
        self._tokenizer("")  # sets what the file may have set otherwise: while that changes no other thread may use it
        self._vocabulary = Vocabulary(self._tokenizer)
        self.context_tokens = int(self._model.config.max_position_embeddings)
        self._end_tokens = _end_tokens(self._model, self._tokenizer)
        self._routing = Routing()
        layers = install_slots(
            self._model,
            self._model.get_output_embeddings(),
            config.slots,
            config.max_rank,
            self._model.dtype,
            self._routing,
        )
        self.slots = SlotTable(layers, config.slots)
        shapes = {name: LayerShape(layer.base.in_features, layer.base.out_features) for name, layer in layers.items()}
        self.adapter_limits = AdapterLimits(config.base_model, shapes, config.max_rank)

    def encode_prompt(self, request: GenerationRequest) -> list[int]:
        """Return the prompt's tokens. Raises EngineError PROMPT_TOO_LONG where the answer would not fit behind them."""
        tokens: list[int] = self._tokenizer.backend_tokenizer.encode(request.prompt, add_special_tokens=False).ids
        total = len(tokens) + request.max_new_tokens
        if total > self.context_tokens:
            raise EngineError(
                "PROMPT_TOO_LONG",
                f"The prompt has {len(tokens)} tokens, which with {request.max_new_tokens} new ones makes {total}; "
                f"{self.config.base_model} has a context of {self.context_tokens}. Shorten the prompt or ask for less.",
                field="prompt",
            )
        return tokens

    def begin(self, request: GenerationRequest, prompt: list[int], slot: int) -> Sequence:
        stream = TextStream(self._vocabulary, request.stop)
        return Sequence(request, prompt, slot, stream, DynamicCache(config=self._model.config))

    @torch.inference_mode()
    def advance(self, sequence: Sequence) -> str:
        """Add one token to a sequence that has not finished; return the text that is now certain."""
        # an empty prompt starts where a document does: behind the end of the one before
        unread = sequence.unread or [min(self._end_tokens)]
        self._route([sequence.slot])
        inputs = torch.tensor([unread], device=self.device)
        output = self._model(input_ids=inputs, past_key_values=sequence.cache, use_cache=True, logits_to_keep=1)
        return sequence.add(output.logits[0, -1], self._end_tokens)

    def encode_rows(self, rows: list[Mapping[str, Any]], max_tokens: int) -> list[Example | None]:
        """Tokens and labels of each row as the trainer sees them; None where it has nothing to learn from."""
        if max_tokens < 2:
            raise invalid("max_tokens", f"A row of at most {max_tokens} tokens has nothing to predict; take 2 or more.")
        try:
            return list(encode_all(rows, self._tokenizer, min(max_tokens, self.context_tokens)))
        except ChatTemplateError as error:
            raise EngineError("CHAT_TEMPLATE", str(error), field="rows") from error

    @torch.inference_mode()
    def score(self, example: Example, slot: int) -> RowScore:
        """The loss of one row at its counted tokens."""
        self._route([slot])
        inputs = torch.tensor([example.ids], device=self.device)
        hidden = self._model.get_decoder()(input_ids=inputs, use_cache=False).last_hidden_state[0]
        targets = torch.tensor(example.labels[1:], device=self.device)
        counted = targets != IGNORED
        hidden, targets = hidden[:-1][counted], targets[counted]
        output_layer = self._model.get_output_embeddings()
        total = 0.0
        rows_at_once = max(1, LOGITS_AT_ONCE // output_layer.out_features)
        for start in range(0, len(targets), rows_at_once):
            span = slice(start, start + rows_at_once)
            logits = output_layer(hidden[span]).float()
            total += float(torch.nn.functional.cross_entropy(logits, targets[span], reduction="sum"))
        return RowScore(total, len(targets))

    def predicted(self, sequence: Sequence, seconds: float) -> Prediction:
        holder = self.slots.holder(sequence.slot)
        return Prediction(
            sequence.text,
            sequence.prompt_tokens,
            sequence.completion_tokens,
            sequence.finish_reason or FinishReason.CANCELLED,
            None if holder is None else holder.digest,
            self.config.base_model,
            round(seconds, 6),
        )

    def _route(self, slots: list[int]) -> None:
        """Say which slot each sequence of the next forward pass uses."""
        self._routing.set(slots, self.slots.rank(slots), self.device)


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a text, as the model's generation settings and the tokenizer name them."""
    named = model.generation_config.eos_token_id
    tokens = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*tokens, tokenizer.eos_token_id) if token is not None)
