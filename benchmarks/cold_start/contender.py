"""Starts an inference server's engine, each time in a process of its own, and makes what it starts from."""

from __future__ import annotations

import hashlib
import resource
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_base import BASE, write_base
from inference.engine import prequantized
from inference.engine.engine import Engine, EngineConfig
from inference.server.backend import WARM_UP, Backend, ServerConfig

CONTEXT_TOKENS = 256

torch.set_num_threads(1)


class Maker:
    """Writes base models, with the shipped one's tokenizer, and starts an engine with each for the first time."""

    def __init__(self, name: str, folder: str) -> None:
        self._folder = Path(folder)

    def make(self, shapes: dict[str, dict[str, int]]) -> dict[str, float]:
        for name, shape in shapes.items():
            write_base(self._folder / name, shape, CONTEXT_TOKENS)
            Engine(_config(self._folder, name, kept=True))
        return {
            "base_mib": _mib(self._folder / "base"),
            "kept_mib": _mib(max((self._folder / "kept").iterdir(), key=_mib)),
        }


class Contender:
    """All libraries have started once it is there: it has loaded a small base model in its own way."""

    def __init__(self, name: str, folder: str) -> None:
        self._folder = Path(folder)
        self._kept = name == "platform"
        self._quantized = 0
        self._start("small")

    def load(self) -> dict[str, Any]:
        """Seconds until the first token."""
        self._quantized = 0
        begun, cpu = time.perf_counter(), _cpu_s()
        backend = self._start("base")
        took = {"cpu_s": _cpu_s() - cpu, "wall_s": time.perf_counter() - begun}
        return {**took, **_said(backend), "quantized": self._quantized}

    def _start(self, name: str) -> Backend:
        """What a server does at its start (Backend.load), down to the first token."""
        module: Any = prequantized
        load_base = module.load_base

        def counting(*arguments: Any, **options: Any) -> Any:
            self._quantized += 1
            return load_base(*arguments, **options)

        module.load_base = counting
        try:
            backend = Backend(ServerConfig(_config(self._folder, name, kept=self._kept)), lambda *_: Path())
            backend.load()
        finally:
            module.load_base = load_base
        return backend


def _config(folder: Path, name: str, *, kept: bool) -> EngineConfig:
    return EngineConfig(
        f"{BASE}/{name}", folder / name, device="cpu", threads=1, kept=folder / "kept" if kept else None
    )


@torch.inference_mode()
def _said(backend: Backend) -> dict[str, Any]:
    """The first token of the server's first prompt, and the logits behind each of the prompt's tokens."""
    engine: Any = backend._engine
    hidden = engine._passes.whole(engine.encode_prompt(WARM_UP), 0)
    logits = engine._model.get_output_embeddings()(hidden).float()
    return {"token": int(logits[-1].argmax()), "logits_sha256": hashlib.sha256(logits.numpy().tobytes()).hexdigest()}


def _mib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 2**20


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
