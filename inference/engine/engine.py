"""The model, its slots, and the two things it does: add a token to each of some sequences, and score a row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from inference.engine.adapters import AdapterLimits, LayerShape
from inference.engine.errors import EngineError, invalid
from inference.engine.packing import pack
from inference.engine.passes import Passes
from inference.engine.prequantized import load
from inference.engine.request import FinishReason, GenerationRequest, Prediction, RowScore
from inference.engine.sampling import not_finite
from inference.engine.sequence import Sequence
from inference.engine.slots import Routing, SlotTable, install_slots
from inference.engine.text import TextStream, Vocabulary
from training.trainer.chat import ChatFormat, ChatTemplateError
from training.trainer.config import Quantization
from training.trainer.encoding import IGNORED, Example, encode_all

logger = logging.getLogger(__name__)

LOGITS_AT_ONCE = 4_194_304
"""Logits in memory at a time while a row is scored."""
WIDTH_WORTH_THREADS = 1024
"""A narrower model's products for one token are over before a second thread has begun: on two busy cores, two threads
took eight times as long as one."""
CACHED_CONTEXTS = 8
MOST_CACHED_TOKENS = 32_768
Outcome = str | Exception
"""Of a step for one sequence: the text that is now certain, or why it failed."""


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
    revision: str = ""
    """The release of the base model, where it has one."""
    kept: Path | None = None
    """A folder where quantized weights are kept for later starts; None keeps none."""
    slots: int = 8
    """Adapters that are in the model at a time."""
    max_rank: int = 256
    """The largest LoRA rank that a slot takes; memory is set aside for it."""
    batch: int = 8
    """The most sequences that get a token in one pass; where there are more, a step has several."""
    prompt_tokens_a_step: int = 256
    """A longer prompt is read in parts of so many tokens, and the running sequences go on between them."""
    cache_tokens: int | None = None
    """Tokens whose keys and values there is room for, of all sequences together; at least a whole context. None means
    eight contexts, of a long one less (MOST_CACHED_TOKENS)."""
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
        self._model = load(
            config.path,
            config.quantization,
            self.device,
            base_model=config.base_model,
            revision=config.revision,
            root=config.kept,
        )
        if config.threads or self._model.config.hidden_size < WIDTH_WORTH_THREADS:
            torch.set_num_threads(config.threads or 1)
        self._tokenizer = AutoTokenizer.from_pretrained(config.path, local_files_only=True, trust_remote_code=False)
        self._tokenizer("")  # sets what the file may have set otherwise: while that changes no other thread may use it
        self._chats = ChatFormat(self._tokenizer)
        self._vocabulary = Vocabulary(self._tokenizer)
        self.context_tokens = int(self._model.config.max_position_embeddings)
        self._end_tokens = _end_tokens(self._model, self._tokenizer)
        routing = Routing()
        head = self._model.get_output_embeddings()
        layers = install_slots(self._model, head, config.slots, config.max_rank, self._model.dtype, routing)
        packed = pack([layer.base for layer in layers.values()], head)
        self.slots = SlotTable(layers, config.slots)
        shapes = {name: LayerShape(layer.base.in_features, layer.base.out_features) for name, layer in layers.items()}
        self.adapter_limits = AdapterLimits(config.base_model, shapes, config.max_rank)
        tokens = config.cache_tokens or min(CACHED_CONTEXTS * self.context_tokens, MOST_CACHED_TOKENS)
        self._passes = Passes(
            self._model,
            layers,
            self.slots,
            routing,
            most=config.batch,
            read_at_once=config.prompt_tokens_a_step,
            packed=packed,
            tokens=max(tokens, self.context_tokens),  # a request that fits the context fits the cache
            device=self.device,
        )

    @property
    def room_tokens(self) -> int:
        """Tokens whose keys and values there is room for where there are none."""
        return self._passes.pages.tokens

    def room_of(self, request: GenerationRequest, prompt: list[int]) -> int:
        """Of that, what `begin` sets aside for a request. Callable from any thread."""
        return self._passes.pages.whole(_read(request, prompt))

    @property
    def free_tokens(self) -> int:
        """Tokens whose keys and values there is room for."""
        return self._passes.pages.free_tokens

    def encode_prompt(self, request: GenerationRequest) -> list[int]:
        """Return the prompt's tokens, a chat's piece by piece, as in training.

        Raises EngineError PROMPT_TOO_LONG where the answer would not fit behind them, and CHAT_TEMPLATE.
        """
        try:
            pieces = self._chats.prompt_pieces(request.messages) if request.messages else [request.prompt]
        except ChatTemplateError as error:
            raise EngineError("CHAT_TEMPLATE", str(error), field="messages") from error
        encode = self._tokenizer.backend_tokenizer.encode
        tokens: list[int] = [token for piece in pieces for token in encode(piece, add_special_tokens=False).ids]
        total = len(tokens) + request.max_new_tokens
        if total > self.context_tokens:
            raise EngineError(
                "PROMPT_TOO_LONG",
                f"The prompt has {len(tokens)} tokens, which with {request.max_new_tokens} new ones makes {total}; "
                f"{self.config.base_model} has a context of {self.context_tokens}. Shorten the prompt or ask for less.",
                field="messages" if request.messages else "prompt",
            )
        return tokens

    def begin(self, request: GenerationRequest, prompt: list[int], slot: int) -> Sequence | None:
        """Give the request room for all its tokens; None while there is not enough."""
        lease = self._passes.pages.lease(_read(request, prompt))
        if lease is None:
            return None
        # an empty prompt starts where a document does: behind the end of the one before
        start = prompt or [min(self._end_tokens)]
        return Sequence(request, prompt, start, slot, TextStream(self._vocabulary, request.stop), lease)

    def end(self, sequence: Sequence) -> None:
        """Take back a sequence's room; to be called once."""
        self._passes.pages.release(sequence.lease)

    @torch.inference_mode()
    def advance(self, sequences: list[Sequence]) -> list[Outcome]:
        """A step of each sequence, none of which has finished: a part of its prompt, or one token.

        Those that decode share a pass, and so do prompts, where that changes nothing. What one of them comes to does not depend on the others, and neither does it fail
        with them: where a pass fails, each is tried alone.
        """
        outcomes: dict[Sequence, Outcome] = {}
        decoding = [sequence for sequence in sequences if not sequence.is_reading]
        reading = [sequence for sequence in sequences if sequence.is_reading]
        self._passes.begin_step()
        for first in range(0, len(decoding), self.config.batch):
            outcomes |= self._apart(self._decode, decoding[first : first + self.config.batch])
        for together in self._read_together(reading):
            outcomes |= self._apart(self._read, together)
        return [outcomes[sequence] for sequence in sequences]

    def _apart(
        self, run: Callable[[list[Sequence]], dict[Sequence, Outcome]], sequences: list[Sequence]
    ) -> dict[Sequence, Outcome]:
        """`run` changes no sequence before its pass has succeeded."""
        try:
            return run(sequences)
        except Exception as error:
            if len(sequences) == 1:
                return {sequences[0]: error}
            logger.exception("A pass over %d sequences failed; each is tried alone", len(sequences))
            return {sequence: outcome for each in sequences for sequence, outcome in self._apart(run, [each]).items()}

    def _read_together(self, sequences: list[Sequence]) -> list[list[Sequence]]:
        """Who may share a pass, in the order in which they came."""
        groups: list[list[Sequence]] = []
        for sequence in sequences:
            if groups and self._passes.may_share([self._part(each) for each in (*groups[-1], sequence)]):
                groups[-1].append(sequence)
            else:
                groups.append([sequence])
        return groups

    def _part(self, sequence: Sequence) -> tuple[Sequence, int]:
        """How much of a prompt is read next."""
        return sequence, min(len(sequence.unread), self.config.prompt_tokens_a_step)

    def _read(self, sequences: list[Sequence]) -> dict[Sequence, Outcome]:
        """The next part of each prompt; the last part gives a token."""
        parts = [self._part(sequence) for sequence in sequences]
        logits = self._passes.read(parts)
        for sequence, count in parts:
            sequence.seen(count)
        done = [row for row, sequence in enumerate(sequences) if not sequence.unread]
        outcomes: dict[Sequence, Outcome] = {sequence: "" for sequence in sequences if sequence.unread}
        return outcomes | self._chosen([sequences[row] for row in done], logits[done])

    def _decode(self, sequences: list[Sequence]) -> dict[Sequence, Outcome]:
        ordered, logits = self._passes.decode(sequences)
        for sequence in ordered:
            sequence.seen(1)
        return self._chosen(ordered, logits)

    def _chosen(self, sequences: list[Sequence], logits: torch.Tensor) -> dict[Sequence, Outcome]:
        """Each sequence's next token; the first of equal logits, where it takes the best."""
        best, tokens = logits.max(dim=-1)
        finite, taken = best.isfinite().tolist(), tokens.tolist()
        outcomes: dict[Sequence, Outcome] = {}
        for row, sequence in enumerate(sequences):
            try:
                if not finite[row]:
                    raise not_finite()
                token = taken[row] if sequence.sampler.takes_the_best else sequence.sampler.choose(logits[row])
                outcomes[sequence] = sequence.add(token, logits[row], self._end_tokens)
            except Exception as error:
                outcomes[sequence] = error
        return outcomes

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
        hidden = self._passes.whole(example.ids, slot)
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
            None if sequence.logprobs is None else tuple(sequence.logprobs),
        )


def _read(request: GenerationRequest, prompt: list[int]) -> int:
    """The most tokens that are read of a request; the last one that is generated is not."""
    return max(1, len(prompt)) + request.max_new_tokens - 1


def _device(asked: str) -> str:
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end a text, as the model's generation settings and the tokenizer name them."""
    named = model.generation_config.eos_token_id
    tokens = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*tokens, tokenizer.eos_token_id) if token is not None)
