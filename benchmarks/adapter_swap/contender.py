"""What puts adapters into one quantized base model: our slots, and peft's two ways, each in a process of its own."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from benchmarks.random_base import BASE, prompts
from inference.engine.adapters import WEIGHTS_FILE, AdapterRef, AdapterStore
from inference.engine.engine import Engine, EngineConfig
from training.trainer.artifact import adapter_digest
from training.trainer.config import Quantization
from training.trainer.quantization import load_base

PROMPT_TOKENS = 24
SLOTS = 2
HOST_ADAPTERS = 64
WAYS = ("first", "cold", "cached", "resident")

torch.set_num_threads(1)


class Alone:
    """Each adapter on its own in peft: what all others are compared with."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def adapter_bytes(self) -> int:
        return (self._folder / "adapter-0" / WEIGHTS_FILE).stat().st_size

    def write_logits(self, adapters: int) -> None:
        found = {}
        base: Any = load_base(self._folder / "base", Quantization.NF4, torch.device("cpu"), cache_dequantized=True)
        for number in range(adapters):
            model = PeftModel.from_pretrained(base, _adapter(self._folder, number)).eval()
            with torch.inference_mode():
                found[f"{number}"] = model(_prompt(self._folder)).logits[0].clone()
            base = model.unload()
        save_file(found, self._folder / "alone.safetensors")


class _Compared:
    """Logits after swaps, and those of the adapters alone."""

    def __init__(self, folder: Path) -> None:
        self._alone = {int(number): logits for number, logits in load_file(folder / "alone.safetensors").items()}
        self._scale = max(float(logits.abs().max()) for logits in self._alone.values())

    def over(self, order: Sequence[int], logits_after: Callable[[int], torch.Tensor]) -> dict[str, Any]:
        """`largest` difference to the adapter alone, and `nearest` that another adapter comes, in parts of the largest logit."""
        largest, nearest = 0.0, float("inf")
        bits = hashlib.sha256()
        for number in order:
            logits = logits_after(number)
            bits.update(logits.numpy().tobytes())
            apart = {other: float((logits - alone).abs().max()) for other, alone in self._alone.items()}
            largest = max(largest, apart.pop(number) / self._scale)
            nearest = min(nearest, *(each / self._scale for each in apart.values()))
        return {"swaps": len(order), "largest": largest, "nearest": nearest, "bits": bits.hexdigest()}


class Ours:
    """The engine with its store, as the inference server has them. Two slots, so that each swap takes another's place."""

    def __init__(self, name: str, folder: str) -> None:
        self._folder = Path(folder)
        config = EngineConfig(
            BASE, self._folder / "base", device="cpu", slots=SLOTS, max_rank=8, batch=4, cache_tokens=128, threads=1
        )
        self._engine = Engine(config)
        self._files = 0
        self._prompt = _prompt(self._folder)[0].tolist()
        self._refs: dict[int, AdapterRef] = {}
        self._stores = {"cold": self._store(1), "cached": self._store(HOST_ADAPTERS)}

    def compare(self, order: list[int]) -> dict[str, Any]:
        compared = _Compared(self._folder)
        return {way: compared.over(order, partial(self._logits, way)) for way in WAYS}

    def measure(self, way: str, adapters: int, seconds: float) -> dict[str, float]:
        """Residents are as many as there are slots; others come in turn, so that none is there when its turn comes."""
        turns = SLOTS if way == "resident" else adapters
        for number in range(turns):
            self._swap(way, number)
        files, loads = self._files, self._engine.slots.loads
        took = _timed(lambda number: self._swap(way, number), turns, seconds)
        return took | {"files": self._files - files, "loads": self._engine.slots.loads - loads}

    def moved_by_residents(self, swaps: int) -> dict[str, int]:
        for number in range(SLOTS):
            self._swap("resident", number)
        slots = self._engine.slots
        files, loads, loaded_bytes = self._files, slots.loads, slots.loaded_bytes
        for turn in range(swaps):
            self._swap("resident", turn % SLOTS)
        return {
            "swaps": swaps,
            "files": self._files - files,
            "loads": slots.loads - loads,
            "bytes": slots.loaded_bytes - loaded_bytes,
        }

    def _swap(self, way: str, number: int) -> int:
        """The slot that the adapter is in; nobody keeps it."""
        store = self._store(1) if way == "first" else self._stores["cold" if way == "cold" else "cached"]
        slot = self._engine.slots.acquire(store.get(self._ref(number)))
        assert slot is not None
        self._engine.slots.release(slot)
        return slot

    def _logits(self, way: str, number: int) -> torch.Tensor:
        if way == "resident":
            self._swap("cached", number)
        slot = self._swap(way, number)
        with torch.inference_mode():
            hidden = self._engine._passes.whole(self._prompt, slot)
            return self._engine._model.get_output_embeddings()(hidden)

    def _ref(self, number: int) -> AdapterRef:
        if number not in self._refs:
            folder = Path(_adapter(self._folder, number))
            self._refs[number] = AdapterRef("org", folder.name, adapter_digest(folder))
        return self._refs[number]

    def _store(self, capacity: int) -> AdapterStore:
        return AdapterStore(self._fetch, self._engine.adapter_limits, capacity)

    def _fetch(self, key: str, digest: str) -> Path:
        self._files += 1
        return self._folder / key


class Peer:
    """peft, in one of two ways, with one adapter at a time."""

    def __init__(self, name: str, folder: str) -> None:
        self._name = name
        self._folder = Path(folder)
        base = load_base(self._folder / "base", Quantization.NF4, torch.device("cpu"), cache_dequantized=True)
        self._model: Any = PeftModel.from_pretrained(base, _adapter(self._folder, 0), adapter_name="one").eval()
        self._active = "one"

    def compare(self, order: list[int]) -> dict[str, Any]:
        return {self._name: _Compared(self._folder).over(order, self._logits)}

    def measure(self, way: str, adapters: int, seconds: float) -> dict[str, float]:
        return _timed(self._swap, adapters, seconds, after=self._delete_the_one_before)

    def _logits(self, number: int) -> torch.Tensor:
        self._swap(number)
        self._delete_the_one_before()
        with torch.inference_mode():
            return self._model(_prompt(self._folder)).logits[0]

    def _swap(self, number: int) -> None:
        if self._name == "hotswap_adapter":
            hotswap_adapter(self._model, _adapter(self._folder, number), self._active, torch_device="cpu")
            return
        self._active = "other" if self._active == "one" else "one"
        self._model.load_adapter(_adapter(self._folder, number), adapter_name=self._active)
        self._model.set_adapter(self._active)

    def _delete_the_one_before(self) -> None:
        for name in [name for name in self._model.peft_config if name != self._active]:
            self._model.delete_adapter(name)


def _timed(
    swap: Callable[[int], Any], turns: int, seconds: float, after: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Swap for so much processor time, `after` not counted; `half` is the share that the first half of the swaps took."""
    at = [0.0]
    walls = 0.0
    begun = time.process_time()
    while time.process_time() - begun < seconds or len(at) < 3:
        cpu, wall = time.process_time(), time.perf_counter()
        swap((len(at) - 1) % turns)
        at.append(at[-1] + time.process_time() - cpu)
        walls += time.perf_counter() - wall
        after()
    swaps = len(at) - 1
    half = at[swaps // 2] / at[-1] * swaps / 2 / (swaps // 2)
    return {"swaps": swaps, "cpu_ms": 1000 * at[-1] / swaps, "wall_ms": 1000 * walls / swaps, "half": half}


def _adapter(folder: Path, number: int) -> str:
    return str(folder / f"adapter-{number}")


def _prompt(folder: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    (prompt,) = prompts(tokenizer, 1, PROMPT_TOKENS)
    return torch.tensor([tokenizer.encode(prompt, add_special_tokens=False)])
