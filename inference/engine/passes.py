"""Forward passes of the model: what goes in, which adapter each row has, and what it attends to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from inference.engine import attention
from inference.engine.attention import Attention, Decoding, Reading, WholeRow, rounded
from inference.engine.pages import Pages
from inference.engine.rows import steady_sizes
from inference.engine.sequence import Sequence
from inference.engine.slots import Routing, Share, SlotLinear, SlotTable, room_of, shares


@dataclass(frozen=True)
class _Batch:
    """Sequences that decode together, in the order of their rows; of `rows` the last may be nobody's."""

    sequences: list[Sequence]
    rows: int
    shares: list[Share]
    attention: Decoding


class Passes:
    """A model whose linear layers are `layers`, its slots, and the pages for keys and values."""

    def __init__(
        self,
        model: Any,
        layers: dict[str, SlotLinear],
        slots: SlotTable,
        routing: Routing,
        *,
        most: int,
        tokens: int,
        device: torch.device,
    ) -> None:
        """`most` sequences decode in one pass; `tokens` is the room for keys and values."""
        self._model = model
        self._slots = slots
        self._routing = routing
        self._device = device
        self._dtype: torch.dtype = model.dtype
        shape = model.config
        bases = [*(layer.base for layer in layers.values()), model.get_output_embeddings()]
        self.sizes = steady_sizes(bases, most, self._dtype, device)
        """How many rows a decoding pass may have."""
        self._rank_bytes = sum(base.in_features + base.out_features for base in bases[:-1]) * self._dtype.itemsize
        self._window: int | None = getattr(shape, "sliding_window", None)
        self._grouped = shape.num_attention_heads // shape.num_key_value_heads
        width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
        self.pages = Pages(shape.num_hidden_layers, shape.num_key_value_heads, width, tokens, self._dtype, device)
        model.set_attn_implementation(attention.NAME)
        self._batches: dict[tuple[tuple[Sequence, int], ...], _Batch] = {}
        self._batches_before = self._batches

    def begin_step(self) -> None:
        """A batch is made once, and used as long as each step has it again."""
        self._batches_before, self._batches = self._batches, {}

    def read(self, sequence: Sequence, count: int) -> torch.Tensor:
        """Read the next `count` tokens of a prompt; the logits behind the last of them, [1, vocabulary].

        The pass is the prompt's own, so that its shape, and with it each bit, depends on nothing else.
        """
        end = sequence.read + count
        places = sequence.lease.places[:end].to(self._device)
        reading = Reading(self.pages, places, sequence.read, self._window, self._grouped, self._dtype)
        self._route(sequence.slot)
        tokens = torch.tensor([sequence.unread[:count]], device=self._device)
        return self._logits(tokens, torch.arange(sequence.read, end, device=self._device).unsqueeze(0), reading)

    def decode(self, sequences: list[Sequence]) -> tuple[list[Sequence], torch.Tensor]:
        """Read the newest token of each; the sequences in an order that suits, and logits [rows, vocabulary]."""
        batch = self._batch(sequences)
        positions = [sequence.read for sequence in batch.sequences]
        self._routing.shares = batch.shares
        batch.attention.at(positions)
        idle = [0] * (batch.rows - len(sequences))
        inputs = [[*(sequence.unread[0] for sequence in batch.sequences), *idle], [*positions, *idle]]
        tokens, places = torch.tensor(inputs, device=self._device).unsqueeze(2)
        return batch.sequences, self._logits(tokens, places, batch.attention)

    def whole(self, tokens: list[int], slot: int) -> torch.Tensor:
        """The last hidden state [tokens, width] of a row of its own, of which nothing is kept."""
        self._route(slot)
        whole = WholeRow(len(tokens), self._window, self._grouped, self._dtype, self._device)
        inputs = torch.tensor([tokens], device=self._device)
        hidden = self._model.get_decoder()(input_ids=inputs, use_cache=False, attention=whole).last_hidden_state
        return hidden[0]

    def _logits(self, tokens: torch.Tensor, positions: torch.Tensor, attended: Attention) -> torch.Tensor:
        """Behind the last of `tokens` [rows, tokens]: [rows, vocabulary]."""
        output = self._model(
            input_ids=tokens, position_ids=positions, use_cache=False, logits_to_keep=1, attention=attended
        )
        return output.logits[:, -1].float()

    def _batch(self, sequences: list[Sequence]) -> _Batch:
        lengths = {sequence: rounded(sequence.read + 1) for sequence in sequences}
        ranks = {sequence: self._slots.rank(sequence.slot) for sequence in sequences}
        ordered = sorted(sequences, key=lambda each: (room_of(ranks[each]), each.slot, lengths[each]))
        key = tuple((sequence, lengths[sequence]) for sequence in ordered)
        batch = self._batches_before.get(key)
        if batch is None:
            rows = next(size for size in self.sizes if size >= len(sequences))
            theirs = shares(
                [sequence.slot for sequence in ordered],
                [ranks[sequence] for sequence in ordered],
                self._rank_bytes,
                self._device,
            )
            places = [sequence.lease.places for sequence in ordered]
            rounded_lengths = [lengths[sequence] for sequence in ordered]
            attended = Decoding(self.pages, places, rounded_lengths, rows, self._window, self._dtype, self._device)
            batch = _Batch(ordered, rows, theirs, attended)
        self._batches[key] = batch
        return batch

    def _route(self, slot: int) -> None:
        """The next pass has one row, and it uses this slot."""
        self._routing.shares = shares([slot], [self._slots.rank(slot)], self._rank_bytes, self._device)
