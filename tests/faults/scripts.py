"""What a stand-in trainer is to do, told by what any user may set: the run's name, its seed, and its steps.

    name    "plain 50 ms": the behaviour, and how long a step takes
    config  seed, maxSteps, checkpointEverySteps

The state after each step is a chain of sha256 over the seed, so the end of a run is known before it starts, and a resumed
run that lost or repeated a step is found out.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum


class Behaviour(StrEnum):
    PLAIN = "plain"
    DEAF = "deaf"  # does not hear SIGTERM
    SLOW_SAVE = "slow-save"  # a checkpoint takes a second to write
    USER_ERROR = "user-error"  # fails at half its steps with USER_ERROR, which a retry would not mend
    STUMBLES = "stumbles"  # its first two attempts exit before they leave anything
    POISON_EXIT = "poison-exit"  # each attempt exits before it leaves anything
    POISON_SIGNAL = "poison-signal"  # each attempt kills itself
    POISON_WORKER = "poison-worker"  # each attempt kills its worker

    @property
    def is_poison(self) -> bool:
        return self.value.startswith("poison")


USER_ERROR_CODE = "NOTHING_TO_LEARN"
STUMBLING_ATTEMPTS = 2


@dataclass(frozen=True)
class Script:
    behaviour: Behaviour
    step_ms: int = 50

    @property
    def name(self) -> str:
        return f"{self.behaviour.value} {self.step_ms} ms"

    @classmethod
    def of(cls, name: str) -> Script:
        behaviour, step_ms, _ = name.split()
        return cls(Behaviour(behaviour), int(step_ms))


def first_state(seed: int) -> bytes:
    return hashlib.sha256(str(seed).encode()).digest()


def next_state(state: bytes, step: int) -> bytes:
    return hashlib.sha256(state + str(step).encode()).digest()


def final_state(seed: int, steps: int) -> bytes:
    """The state at the end of a run that nothing interrupted."""
    state = first_state(seed)
    for step in range(1, steps + 1):
        state = next_state(state, step)
    return state


def weights(state: bytes) -> bytes:
    """A safetensors file with one tensor: the state."""
    header = json.dumps({"state": {"dtype": "U8", "shape": [len(state)], "data_offsets": [0, len(state)]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + state


def state_in(file: bytes) -> bytes:
    """The tensor of such a file. Raises ValueError where it is none."""
    size = int.from_bytes(file[:8], "little")
    tensor = json.loads(file[8 : 8 + size])["state"]
    begin, end = tensor["data_offsets"]
    state = file[8 + size + begin : 8 + size + end]
    if tensor["dtype"] != "U8" or [len(state)] != tensor["shape"]:
        raise ValueError("not a state")
    return state
