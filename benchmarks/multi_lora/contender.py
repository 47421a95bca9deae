"""What answers requests with adapters, each way in a process of its own, over the same quantized base model."""

from __future__ import annotations

import queue
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoTokenizer

from benchmarks.random_base import BASE, prompts
from inference.engine.adapters import AdapterRef, AdapterWeights, read_adapter
from inference.engine.engine import Engine, EngineConfig, Outcome
from inference.engine.request import GenerationRequest
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from training.trainer.artifact import adapter_digest
from training.trainer.config import Quantization
from training.trainer.quantization import load_base

PROMPT_TOKENS = 24
MOST_REQUESTS = 64

torch.set_num_threads(1)


class Contender:
    def __init__(self, name: str, folder: str) -> None:
        self._folder = Path(folder)
        tokenizer = AutoTokenizer.from_pretrained(self._folder / "base")
        self._prompts = prompts(tokenizer, MOST_REQUESTS, PROMPT_TOKENS)
        self._ids = [tokenizer.encode(prompt, add_special_tokens=False) for prompt in self._prompts]
        self._way: Any = _Ours(self._folder, name) if name in ("platform", "base") else _Peft(self._folder, name)

    def answers(self, requests: int, adapters: int, new_tokens: int) -> list[list[int]]:
        """The new tokens of each request; request number n is for adapter n modulo `adapters`."""
        self._way.prepare(adapters)
        return self._answer(requests, adapters, new_tokens)

    def measure(self, requests: int, adapters: int, new_tokens: int) -> dict[str, float]:
        begun, cpu = time.perf_counter(), _cpu_s()
        answers = self._answer(requests, adapters, new_tokens)
        took = {"wall_s": time.perf_counter() - begun, "cpu_s": _cpu_s() - cpu}
        return {"tokens": sum(map(len, answers)), **took}

    def _answer(self, requests: int, adapters: int, new_tokens: int) -> list[list[int]]:
        asked = [(self._prompts[number], self._ids[number], number % adapters) for number in range(requests)]
        found: list[list[int]] = self._way.answer(asked, new_tokens)
        return found


Asked = list[tuple[str, list[int], int]]
"""Of each request its prompt, the prompt's tokens, and the number of its adapter."""


class _Ours:
    """The scheduler as the inference server runs it, with a slot for each adapter."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._with_adapters = name == "platform"
        self._weights: dict[int, AdapterWeights] = {}
        self._engine: Engine | None = None

    def prepare(self, adapters: int) -> None:
        most = MOST_REQUESTS if adapters > 8 else 16
        config = EngineConfig(
            BASE, self._folder / "base", device="cpu", slots=adapters, max_rank=8, batch=most, threads=1
        )
        self._engine = Engine(config)
        self._engine._end_tokens = frozenset({-1})  # each answer has as many tokens as the next one
        for number in range(adapters if self._with_adapters else 0):
            folder = self._folder / f"adapter-{number}"
            ref = AdapterRef("org", folder.name, adapter_digest(folder))
            self._weights[number] = read_adapter(folder, ref, self._engine.adapter_limits)
        self._most = most

    def answer(self, asked: Asked, new_tokens: int) -> list[list[int]]:
        assert self._engine is not None
        engine = self._engine
        tokens: dict[str, list[int]] = {prompt: [] for prompt, _, _ in asked}
        advance = engine.advance

        def remembering(sequences: list[Sequence]) -> list[Outcome]:
            outcomes = advance(sequences)
            for sequence in sequences:
                if not sequence.is_reading:
                    tokens[sequence.request.prompt] += sequence.unread
            return outcomes

        engine.advance = remembering  # type: ignore[method-assign]
        scheduler = Scheduler(engine, active_limit=self._most, queue_limit=MOST_REQUESTS)
        heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            for prompt, _, adapter in asked:
                request = GenerationRequest(prompt, max_new_tokens=new_tokens)
                scheduler.generate(request, self._weights.get(adapter), heard.put)
            left = len(asked)
            while left:
                event = heard.get(timeout=300)
                if isinstance(event, Exception):
                    raise event
                left -= event.prediction is not None
        finally:
            scheduler.close()
            engine.advance = advance  # type: ignore[method-assign]
        return [tokens[prompt] for prompt, _, _ in asked]


class _Peft:
    """peft over transformers' generate, in one of four ways."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._model: Any = load_base(folder / "base", Quantization.NF4, torch.device("cpu"), cache_dequantized=True)
        self._model.generation_config.eos_token_id = None  # each answer has as many tokens as the next one
        self._loaded = 0

    def prepare(self, adapters: int) -> None:
        if self._loaded == 0:
            self._model = PeftModel.from_pretrained(self._model, self._adapter(0), adapter_name="0").eval()
            self._loaded = 1
        if self._name != "load":
            for number in range(self._loaded, adapters):
                self._model.load_adapter(self._adapter(number), adapter_name=f"{number}")
            self._loaded = adapters

    def answer(self, asked: Asked, new_tokens: int) -> list[list[int]]:
        ways: dict[str, Callable[[Asked, int], list[list[int]]]] = {
            "load": self._load_each,
            "set_adapter": self._set_each,
            "grouped": self._by_group,
            "adapter_names": self._by_name,
        }
        with torch.inference_mode():
            return ways[self._name](asked, new_tokens)

    def _load_each(self, asked: Asked, new_tokens: int) -> list[list[int]]:
        found = []
        for _, ids, adapter in asked:
            self._model.load_adapter(self._adapter(adapter), adapter_name="its")
            self._model.set_adapter("its")
            found += self._generate([ids], new_tokens)
            self._model.delete_adapter("its")
        return found

    def _set_each(self, asked: Asked, new_tokens: int) -> list[list[int]]:
        found = []
        for _, ids, adapter in asked:
            self._model.set_adapter(f"{adapter}")
            found += self._generate([ids], new_tokens)
        return found

    def _by_group(self, asked: Asked, new_tokens: int) -> list[list[int]]:
        found: dict[int, list[int]] = {}
        for adapter in sorted({adapter for _, _, adapter in asked}):
            numbers = [number for number, (_, _, theirs) in enumerate(asked) if theirs == adapter]
            self._model.set_adapter(f"{adapter}")
            answers = self._generate([asked[number][1] for number in numbers], new_tokens)
            found |= dict(zip(numbers, answers, strict=True))
        return [found[number] for number in range(len(asked))]

    def _by_name(self, asked: Asked, new_tokens: int) -> list[list[int]]:
        names = [f"{adapter}" for _, _, adapter in asked]
        return self._generate([ids for _, ids, _ in asked], new_tokens, adapter_names=names)

    def _generate(self, ids: list[list[int]], new_tokens: int, **options: Any) -> list[list[int]]:
        inputs = torch.tensor(ids)
        output = self._model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            max_new_tokens=new_tokens,
            pad_token_id=0,
            **options,
        )
        tokens: list[list[int]] = output[:, inputs.shape[1] :].tolist()
        return tokens

    def _adapter(self, number: int) -> str:
        return str(self._folder / f"adapter-{number}")


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
