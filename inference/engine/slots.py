"""Adapters in the model: each layer holds the matrices of all slots, stacked, and each sequence picks its own.

    output[n] = base(x[n]) + (x[n] @ A[slot[n]].T) @ B[slot[n]]

B is transposed, [rank, outputs], and times the adapter's scaling. Slot 0 is no adapter, and nothing is computed for it.

What is computed for a row depends on its own adapter alone, down to the last bit: rows are multiplied one by one, with as
many rows of A and B as the adapter's own rank takes, whatever the others' ranks are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from inference.engine.adapters import AdapterRef, AdapterWeights
from inference.engine.aligned import zeros

NO_ADAPTER = 0
LEAST_ROOM = 8
MOST_KEPT_BYTES = 2**29
"""Gathered matrices of a batch are kept from step to step up to this size; larger ones are gathered at each."""


def room_of(rank: int) -> int:
    """How many rows of A and B an adapter is computed with: few sizes, so that adapters of about one rank share a product."""
    return 0 if rank == 0 else max(LEAST_ROOM, 1 << (rank - 1).bit_length())


Rows = slice | tuple[slice, slice]
"""Of a batch [rows, tokens, features]: some rows, or some tokens of the only row."""


class Share:
    """Neighbouring rows of a batch whose adapters take the same room, with the slot of each."""

    def __init__(self, rows: Rows, slots: Sequence[int], room: int, device: torch.device, *, keep: bool) -> None:
        self.rows = rows
        self.slots = frozenset(slots)
        self._room = room
        first, count = slots[0], len(slots)
        in_a_row = list(slots) == list(range(first, first + count))
        # a slice of the stack is a view; slots that lie apart are gathered
        self._index = slice(first, first + count) if in_a_row else torch.tensor(slots, device=device)
        self._kept: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] | None = {} if keep and not in_a_row else None

    def matrices(self, layer: SlotLinear) -> tuple[torch.Tensor, torch.Tensor]:
        """A [rows, room, inputs] and B [rows, room, outputs] of these rows' adapters."""
        found = None if self._kept is None else self._kept.get(layer)
        if found is None:
            found = layer.a[:, : self._room][self._index], layer.b[:, : self._room][self._index]
            if self._kept is not None:
                self._kept[layer] = found
        return found


class Routing:
    """Which adapters the rows of the batch in hand use; every layer reads it during a forward pass."""

    def __init__(self) -> None:
        self.shares: list[Share] = []


class SlotLinear(nn.Module):
    """A (quantized) linear layer with preallocated room for the LoRA matrices of every slot."""

    def __init__(self, base: nn.Linear, slots: int, max_rank: int, dtype: torch.dtype, routing: Routing) -> None:
        super().__init__()
        self.base = base
        self._routing = routing
        self._filled: set[int] = set()  # the slots whose adapter has matrices for this layer
        device, room = base.weight.device, room_of(max_rank)
        self.a: torch.Tensor
        self.b: torch.Tensor
        # the largest rank is seldom used: to touch all of its room at the start took longer than to load a model
        self.register_buffer("a", zeros(slots, room, base.in_features, dtype=dtype, device=device))
        self.register_buffer("b", zeros(slots, room, base.out_features, dtype=dtype, device=device))
        # the same memory: for the few kilobytes of a matrix torch takes longer to begin than to copy
        is_plain = device.type == "cpu" and dtype == torch.float32
        self._arrays = (self.a.numpy(), self.b.numpy()) if is_plain else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x and the result are [rows, tokens, features]."""
        output: torch.Tensor = self.base(x)
        for share in self._routing.shares:
            if self._filled.isdisjoint(share.slots):
                continue
            a, b = share.matrices(self)
            output[share.rows].baddbmm_(torch.bmm(x[share.rows], a.transpose(1, 2)), b)
        return output

    def load(
        self, slot: int, weights: tuple[torch.Tensor, torch.Tensor] | None, rank: int, scaling: float = 1.0
    ) -> int:
        """Fill a slot for an adapter of this rank; what of its room it has no weights for is zeros. Returns the bytes copied."""
        filled, copied = 0, 0
        self._filled.discard(slot)
        if weights is not None:
            a, b = weights
            filled, copied = rank, a.nbytes + b.nbytes
            if self._arrays is None:
                self.a[slot, :rank].copy_(a)
                self.b[slot, :rank].copy_(b * scaling)
            else:
                kept_a, kept_b = self._arrays
                kept_a[slot, :rank] = a.numpy()
                np.multiply(b.numpy(), np.float32(scaling), out=kept_b[slot, :rank])
            self._filled.add(slot)
        if filled < room_of(rank):
            self.a[slot, filled : room_of(rank)].zero_()
            self.b[slot, filled : room_of(rank)].zero_()
        return copied


class SlotTable:
    """Who is in which slot. Used by the one thread that owns the model."""

    def __init__(self, layers: Mapping[str, SlotLinear], slots: int) -> None:
        self._layers = layers
        self._free = list(range(slots, NO_ADAPTER, -1))
        self._resident: OrderedDict[AdapterRef, int] = OrderedDict()  # least recently used first
        self._users: dict[int, int] = {}
        self._holders: dict[int, AdapterRef] = {}
        self._ranks = {NO_ADAPTER: 0}
        self.loads = 0
        """How often an adapter was copied into a slot."""
        self.loaded_bytes = 0
        """What was copied then."""

    def acquire(self, weights: AdapterWeights | None) -> int | None:
        """Return the adapter's slot, pinned until `release`, loading it if need be; None while all slots are in use."""
        if weights is None:
            return NO_ADAPTER
        slot = self._resident.get(weights.ref)
        if slot is None:
            slot = self._evict()
            if slot is None:
                return None
            self._fill(slot, weights)
            self._resident[weights.ref] = slot
            self._holders[slot] = weights.ref
            self._ranks[slot] = weights.rank
            self.loads += 1
        self._resident.move_to_end(weights.ref)
        self._users[slot] = self._users.get(slot, 0) + 1
        return slot

    def release(self, slot: int) -> None:
        if slot != NO_ADAPTER:
            self._users[slot] -= 1

    def holder(self, slot: int) -> AdapterRef | None:
        """The adapter whose weights are in a slot; None for slot 0."""
        return self._holders.get(slot)

    def holds(self, weights: AdapterWeights | None) -> bool:
        """Whether it takes no loading."""
        return weights is None or weights.ref in self._resident

    def rank(self, slot: int) -> int:
        """The rank of the adapter in a slot; 0 for none."""
        return self._ranks[slot]

    def resident(self) -> list[AdapterRef]:
        return list(self._resident)

    def in_use(self) -> int:
        """Number of slots that are pinned."""
        return sum(users > 0 for users in self._users.values())

    def _fill(self, slot: int, weights: AdapterWeights) -> None:
        try:
            for name, layer in self._layers.items():
                matrices = weights.layers.get(name)
                self.loaded_bytes += layer.load(slot, matrices, weights.rank, weights.scaling)
        except BaseException:
            self._free.append(slot)  # half filled, and so held by nobody
            raise

    def _evict(self) -> int | None:
        """Return an empty slot, where none is free that of the least recently used adapter that nobody is using."""
        if self._free:
            return self._free.pop()
        for ref, slot in self._resident.items():
            if not self._users.get(slot):
                del self._resident[ref], self._holders[slot]
                return slot
        return None


def shares(slots: Sequence[int], ranks: Sequence[int], width: int, device: torch.device) -> list[Share]:
    """Group a batch's rows, which come in the order of their rooms. `width` is the bytes that a rank takes in all layers."""
    rooms = [room_of(rank) for rank in ranks]
    keep = sum(rooms) * width <= MOST_KEPT_BYTES
    found, first = [], 0
    for row in range(1, len(rooms) + 1):
        if row == len(rooms) or rooms[row] != rooms[first]:
            if rooms[first]:
                found.append(Share(slice(first, row), slots[first:row], rooms[first], device, keep=keep))
            first = row
    return found


def spans(slots: Sequence[int], ranks: Sequence[int], tokens: Sequence[int], device: torch.device) -> list[Share]:
    """Of one row in which sequences lie one behind the other, with so many `tokens` each."""
    found, first = [], 0
    for slot, rank, count in zip(slots, ranks, tokens, strict=True):
        if rank:
            where = (slice(None), slice(first, first + count))
            found.append(Share(where, [slot], room_of(rank), device, keep=False))
        first += count
    return found


def install_slots(
    model: nn.Module, skip: nn.Module | None, slots: int, max_rank: int, dtype: torch.dtype, routing: Routing
) -> dict[str, SlotLinear]:
    """Wrap each linear layer but `skip` (the output head), once; `slots` are those beside slot 0."""
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    wrapped: dict[str, SlotLinear] = {}
    for name, module in linear:
        if module is skip:
            continue
        parent, _, child = name.rpartition(".")
        wrapped[name] = SlotLinear(module, slots + 1, max_rank, dtype, routing)
        setattr(model.get_submodule(parent), child, wrapped[name])
    return wrapped
