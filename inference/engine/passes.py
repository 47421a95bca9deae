"""Forward passes of the model: what goes in, which adapter each row has, and what it attends to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from inference.engine import attention
from inference.engine.attention import Attention, Decoding, Reading, ReadingMany, WholeRow, rounded
from inference.engine.pages import Pages
from inference.engine.rows import rows_may_be_joined, steady_sizes
from inference.engine.sequence import Sequence
from inference.engine.slots import Routing, Share, SlotLinear, SlotTable, room_of, shares, spans


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
        read_at_once: int,
        tokens: int,
        packed: bool,
        device: torch.device,
    ) -> None:
        """`most` sequences decode in one pass; a pass reads at most so many tokens; `tokens` is the room for keys and
        values; `packed` weights are worth being asked whether prompts may share a pass.
        """
        self._model = model
        self._slots = slots
        self._routing = routing
        self._device = device
        self._dtype: torch.dtype = model.dtype
        shape = model.config
        bases = [*(layer.base for layer in layers.values()), model.get_output_embeddings()]
        self.sizes = steady_sizes(bases, most, self._dtype, device)
        """How many rows a decoding pass may have."""
        self._most_read = read_at_once
        # several threads divide what is done number by number at places that depend on how many there are
        self._joins = (
            packed
            and torch.get_num_threads() == 1
            and rows_may_be_joined(bases[:-1], read_at_once, self._dtype, device)
        )
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

    def read(self, parts: list[tuple[Sequence, int]]) -> torch.Tensor:
        """Read the next `count` tokens of each prompt; the logits behind the last of them, [parts, vocabulary].

        The products with the base's weights are shared, which is for `may_share` to allow; all else is of each part alone.
        """
        tokens = [token for sequence, count in parts for token in sequence.unread[:count]]
        positions = [at for sequence, count in parts for at in range(sequence.read, sequence.read + count)]
        counts = [count for _, count in parts]
        ends = [end - 1 for end in accumulate(counts)]
        rows = next(size for size in self.sizes if size >= len(parts))
        ends += [0] * (rows - len(parts))
        self._routing.shares = spans(
            [sequence.slot for sequence, _ in parts],
            [self._slots.rank(sequence.slot) for sequence, _ in parts],
            counts,
            self._device,
        )
        attended = ReadingMany([(count, self._reading(sequence, count)) for sequence, count in parts])
        inputs = torch.tensor([[tokens], [positions]], device=self._device)
        return self._logits(inputs[0], inputs[1], attended, torch.tensor(ends, device=self._device))[0, : len(parts)]

    def may_share(self, parts: list[tuple[Sequence, int]]) -> bool:
        """Whether each of these has the bits of a pass of its own when they share one."""
        return (
            self._joins
            and len(parts) <= self.sizes[-1]
            and all(count > 1 for _, count in parts)
            and sum(count for _, count in parts) <= self._most_read
        )

    def _reading(self, sequence: Sequence, count: int) -> Reading:
        places = sequence.lease.places[: sequence.read + count].to(self._device)
        return Reading(self.pages, places, sequence.read, self._window, self._grouped, self._dtype)

    def decode(self, sequences: list[Sequence]) -> tuple[list[Sequence], torch.Tensor]:
        """Read the newest token of each; the sequences in an order that suits, and logits [rows, vocabulary]."""
        batch = self._batch(sequences)
        positions = [sequence.read for sequence in batch.sequences]
        self._routing.shares = batch.shares
        batch.attention.at(positions)
        idle = [0] * (batch.rows - len(sequences))
        inputs = [[*(sequence.unread[0] for sequence in batch.sequences), *idle], [*positions, *idle]]
        tokens, places = torch.tensor(inputs, device=self._device).unsqueeze(2)
        return batch.sequences, self._logits(tokens, places, batch.attention)[:, -1]

    def whole(self, tokens: list[int], slot: int) -> torch.Tensor:
        """The last hidden state [tokens, width] of a row of its own, of which nothing is kept."""
        self._route(slot)
        whole = WholeRow(len(tokens), self._window, self._grouped, self._dtype, self._device)
        inputs = torch.tensor([tokens], device=self._device)
        hidden = self._model.get_decoder()(input_ids=inputs, use_cache=False, attention=whole).last_hidden_state
        return hidden[0]

    def _logits(
        self, tokens: torch.Tensor, positions: torch.Tensor, attended: Attention, places: torch.Tensor | int = 1
    ) -> torch.Tensor:
        """Behind the tokens at `places` of each row [rows, tokens], or its last: [rows, places, vocabulary]."""
        output = self._model(
            input_ids=tokens, position_ids=positions, use_cache=False, logits_to_keep=places, attention=attended
        )
        logits: torch.Tensor = output.logits.float()
        return logits

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
