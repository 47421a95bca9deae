"""Adapters in the model: each layer holds the matrices of all slots, stacked, and each sequence picks its own.

    output[n] = base(x[n]) + (x[n] @ A[slot[n]].T) @ B[slot[n]].T

B holds the adapter's own times its scaling. Slot 0 is no adapter: its matrices are zeros and stay so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import nn

from inference.engine.adapters import AdapterRef, AdapterWeights

NO_ADAPTER = 0


class Routing:
    """Which slot each sequence of the batch in hand uses; every layer reads it during a forward pass."""

    def __init__(self) -> None:
        self.slots: torch.Tensor | slice = slice(NO_ADAPTER, NO_ADAPTER + 1)
        self.rank = 0

    def set(self, slots: list[int], rank: int, device: torch.device) -> None:
        """`rank` is the largest among the slots' adapters: what lies beyond it is zeros, and not computed."""
        self.rank = rank
        # a slice of the stack is a view; only several sequences are worth gathering for
        self.slots = torch.tensor(slots, device=device) if len(slots) > 1 else slice(slots[0], slots[0] + 1)


class SlotLinear(nn.Module):
    """A (quantized) linear layer with preallocated room for the LoRA matrices of every slot."""

    def __init__(self, base: nn.Linear, slots: int, max_rank: int, dtype: torch.dtype, routing: Routing) -> None:
        super().__init__()
        self.base = base
        self._routing = routing
        device = base.weight.device
        self.a: torch.Tensor
        self.b: torch.Tensor
        self.register_buffer("a", torch.zeros(slots, max_rank, base.in_features, dtype=dtype, device=device))
        self.register_buffer("b", torch.zeros(slots, base.out_features, max_rank, dtype=dtype, device=device))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x and the result are [sequences, tokens, features]."""
        output: torch.Tensor = self.base(x)
        slots, rank = self._routing.slots, self._routing.rank
        if rank == 0:
            return output
        inner = torch.bmm(x, self.a[slots, :rank].transpose(1, 2))
        return torch.baddbmm(output, inner, self.b[slots, :, :rank].transpose(1, 2))

    def load(self, slot: int, weights: tuple[torch.Tensor, torch.Tensor] | None, scaling: float) -> None:
        """Fill a slot; a lower rank than the slot's is padded with zeros, a layer without weights is all zeros."""
        self.a[slot].zero_()
        self.b[slot].zero_()
        if weights is not None:
            a, b = weights
            self.a[slot, : a.shape[0]].copy_(a)
            self.b[slot, :, : b.shape[1]].copy_(b.float() * scaling)


class SlotTable:
    """Who is in which slot. Used by the one thread that owns the model."""

    def __init__(self, layers: Mapping[str, SlotLinear], slots: int) -> None:
        self._layers = layers
        self._free = list(range(slots, NO_ADAPTER, -1))
        self._resident: OrderedDict[AdapterRef, int] = OrderedDict()  # least recently used first
        self._users: dict[int, int] = {}
        self._holders: dict[int, AdapterRef] = {}
        self._ranks = {NO_ADAPTER: 0}

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
        self._resident.move_to_end(weights.ref)
        self._users[slot] = self._users.get(slot, 0) + 1
        return slot

    def release(self, slot: int) -> None:
        if slot != NO_ADAPTER:
            self._users[slot] -= 1

    def holder(self, slot: int) -> AdapterRef | None:
        """The adapter whose weights are in a slot; None for slot 0."""
        return self._holders.get(slot)

    def rank(self, slots: list[int]) -> int:
        """The largest rank of the adapters in these slots; 0 where there is none."""
        return max(self._ranks[slot] for slot in slots)

    def resident(self) -> list[AdapterRef]:
        return list(self._resident)

    def in_use(self) -> int:
        """Number of slots that are pinned."""
        return sum(users > 0 for users in self._users.values())

    def _fill(self, slot: int, weights: AdapterWeights) -> None:
        try:
            for name, layer in self._layers.items():
                layer.load(slot, weights.layers.get(name), weights.scaling)
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
