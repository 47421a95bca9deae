"""What answers requests as they come, each way in a process of its own, over the same quantized base model."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoTokenizer
from transformers.generation.streamers import BaseStreamer

from benchmarks.random_base import BASE, prompts
from benchmarks.streaming.traffic import Arrival, Clock, Log, Queue, from_json
from inference.engine.adapters import AdapterRef, read_adapter
from inference.engine.engine import Engine, EngineConfig, Outcome
from inference.engine.request import GenerationRequest
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence as Generated
from training.trainer.artifact import adapter_digest
from training.trainer.config import Quantization
from training.trainer.quantization import load_base

PROMPTS = 64
PROMPT_TOKENS = 24
ANSWER_S = 300
CONTEXT_TOKENS = 256

torch.set_num_threads(1)


class Contender(ABC):
    def __init__(self, folder: str, adapters: str, batch: str) -> None:
        self._folder = Path(folder)
        self._adapters = int(adapters)
        self._batch = int(batch)
        """The most requests that are worked on at a time."""
        tokenizer = AutoTokenizer.from_pretrained(self._folder / "base")
        self._prompts = prompts(tokenizer, PROMPTS, PROMPT_TOKENS)
        self._ids = [tokenizer.encode(prompt, add_special_tokens=False) for prompt in self._prompts]

    def answers(self, asked: list[list[Any]]) -> list[list[int]]:
        """The tokens of each request, when all come at once."""
        log = Log()
        self._serve(from_json(asked), None, log)
        return [log.tokens[number] for number in range(len(asked))]

    def measure(self, asked: list[list[Any]], rate: float) -> dict[str, float]:
        log, arrivals = Log(), from_json(asked)
        self._serve(arrivals, rate, log)
        return log.summary(arrivals)

    def full_batch_s(self, new_tokens: int) -> float:
        """How long a batch of the most requests takes whose answers are so long."""
        asked = [Arrival(0.0, number, number % self._adapters, new_tokens) for number in range(self._batch)]
        log = Log()
        self._serve(asked, None, log)
        return max(log.last.values())

    @abstractmethod
    def _serve(self, asked: Sequence[Arrival], rate: float | None, log: Log) -> None: ...

    def _folder_of(self, adapter: int) -> Path:
        return self._folder / f"adapter-{adapter}"


class _OfTheEngine(Contender):
    def __init__(self, folder: str, adapters: str, batch: str) -> None:
        super().__init__(folder, adapters, batch)
        config = EngineConfig(
            BASE, self._folder / "base", device="cpu", slots=self._adapters, max_rank=8, batch=self._batch,
            cache_tokens=self._batch * CONTEXT_TOKENS, threads=1,
        )  # fmt: skip
        self._engine = Engine(config)
        self._engine._end_tokens = frozenset({-1})  # an answer's length is drawn beforehand
        self._weights = []
        for number in range(self._adapters):
            path = self._folder_of(number)
            ref = AdapterRef("org", path.name, adapter_digest(path))
            self._weights.append(read_adapter(path, ref, self._engine.adapter_limits))

    def _request(self, arrival: Arrival) -> GenerationRequest:
        return GenerationRequest(self._prompts[arrival.prompt], max_new_tokens=arrival.new_tokens)


class Continuous(_OfTheEngine):
    """The scheduler, as the inference server runs it."""

    def _serve(self, asked: Sequence[Arrival], rate: float | None, log: Log) -> None:
        run = _Run(self, asked, rate, log)
        try:
            run.until_all_are_answered()
        finally:
            run.close()

    def cancel(self) -> dict[str, int]:
        """Two places, three requests, and the first is cancelled in its fifth step: in which step that waits joins."""
        engine, advance = self._engine, self._engine.advance
        scheduler = Scheduler(engine, active_limit=2, queue_limit=8)
        requests = [GenerationRequest(prompt, max_new_tokens=40) for prompt in self._prompts[:3]]
        steps: list[list[int]] = []
        works: list[Any] = []
        all_are_there = threading.Event()

        def watched(sequences: list[Generated]) -> list[Outcome]:
            all_are_there.wait(ANSWER_S)
            steps.append([requests.index(sequence.request) for sequence in sequences])
            if len(steps) == 5:
                scheduler.cancel(works[0])
            return advance(sequences)

        engine.advance = watched  # type: ignore[method-assign]
        heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        try:
            for request, weights in zip(requests, self._weights, strict=False):
                works.append(scheduler.generate(request, weights, heard.put))
            all_are_there.set()
            ended = 0
            while ended < len(requests):
                event = heard.get(timeout=ANSWER_S)
                ended += event.prediction is not None
        finally:
            scheduler.close()
            engine.advance = advance  # type: ignore[method-assign]
        last_of_the_first = max(number for number, step in enumerate(steps, 1) if 0 in step)
        first_of_the_third = min(number for number, step in enumerate(steps, 1) if 2 in step)
        return {"cancelled_in": 5, "last_step_of_the_cancelled": last_of_the_first, "joined_in": first_of_the_third}


class _Run:
    """One stretch of traffic through a scheduler of its own. Requests are handed over between steps, and by whoever waits."""

    def __init__(self, contender: Continuous, asked: Sequence[Arrival], rate: float | None, log: Log) -> None:
        self._contender = contender
        self._asked = asked
        self._log = log
        self._engine = contender._engine
        self._advance = self._engine.advance
        self._engine.advance = self._watched  # type: ignore[method-assign]
        self._numbers: dict[int, int] = {}
        self._heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._scheduler = Scheduler(self._engine, active_limit=contender._batch, queue_limit=len(asked))
        self._requests = [contender._request(arrival) for arrival in asked]
        self._clock = Clock()
        self._queue = Queue(asked, rate, self._clock, log)

    def until_all_are_answered(self) -> None:
        answered = 0
        while answered < len(self._asked):
            if answered == len(self._numbers):  # nobody is at work, and so nothing else moves
                self._queue.wait()
                self._hand_over()
            event = self._heard.get(timeout=ANSWER_S)
            if isinstance(event, Exception):
                raise event
            answered += event.prediction is not None

    def close(self) -> None:
        self._scheduler.close()
        self._engine.advance = self._advance  # type: ignore[method-assign]

    def _hand_over(self) -> None:
        with self._lock:
            for number in self._queue.come():
                request, adapter = self._requests[number], self._asked[number].adapter
                self._numbers[id(request)] = number
                self._scheduler.generate(request, self._contender._weights[adapter], self._heard.put)

    def _watched(self, sequences: list[Generated]) -> list[Outcome]:
        self._hand_over()
        outcomes = self._advance(sequences)
        now = self._clock.now()
        for sequence in sequences:
            if not sequence.is_reading:
                number = self._numbers[id(sequence.request)]
                self._log.add(number, sequence.unread[0], now, self._asked[number].new_tokens)
        return outcomes


class _Static(Contender):
    """Whoever waits, as many as there are places, makes a batch; the next one begins when the last of them is answered."""

    def _serve(self, asked: Sequence[Arrival], rate: float | None, log: Log) -> None:
        clock = Clock()
        coming = Queue(asked, rate, clock, log)
        waiting: list[int] = []
        while waiting or not coming.is_over:
            if not waiting:
                coming.wait()
            waiting += coming.come()
            batch, waiting = waiting[: self._batch], waiting[self._batch :]
            self._answer([(number, asked[number]) for number in batch], clock, log)

    @abstractmethod
    def _answer(self, batch: list[tuple[int, Arrival]], clock: Clock, log: Log) -> None: ...


class StaticEngine(_OfTheEngine, _Static):
    """Our engine without its scheduler. Who is answered takes no more part in a step, and frees no place."""

    def _answer(self, batch: list[tuple[int, Arrival]], clock: Clock, log: Log) -> None:
        engine = self._engine
        under_way: dict[Generated, tuple[int, int]] = {}
        for number, arrival in batch:
            request = self._request(arrival)
            slot = engine.slots.acquire(self._weights[arrival.adapter])
            assert slot is not None
            sequence = engine.begin(request, engine.encode_prompt(request), slot)
            assert sequence is not None
            under_way[sequence] = (number, arrival.new_tokens)
        left = list(under_way)
        while left:
            for outcome in engine.advance(left):
                assert isinstance(outcome, str), outcome
            now = clock.now()
            for sequence in left:
                if not sequence.is_reading:
                    number, of = under_way[sequence]
                    log.add(number, sequence.unread[0], now, of)
            left = [sequence for sequence in left if sequence.finish_reason is None]
        for sequence in under_way:
            engine.end(sequence)
            engine.slots.release(sequence.slot)


class AdapterNames(_Static):
    """peft with adapter_names over transformers' generate, which goes on until the longest answer of a batch is there."""

    def __init__(self, folder: str, adapters: str, batch: str) -> None:
        super().__init__(folder, adapters, batch)
        base: Any = load_base(self._folder / "base", Quantization.NF4, torch.device("cpu"), cache_dequantized=True)
        base.generation_config.eos_token_id = None  # an answer's length is drawn beforehand
        self._model = PeftModel.from_pretrained(base, str(self._folder_of(0)), adapter_name="0").eval()
        for number in range(1, self._adapters):
            self._model.load_adapter(str(self._folder_of(number)), adapter_name=f"{number}")

    def _answer(self, batch: list[tuple[int, Arrival]], clock: Clock, log: Log) -> None:
        inputs = torch.tensor([self._ids[arrival.prompt] for _, arrival in batch])
        self._model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            do_sample=False,
            max_new_tokens=max(arrival.new_tokens for _, arrival in batch),
            pad_token_id=0,
            adapter_names=[f"{arrival.adapter}" for _, arrival in batch],
            streamer=_AsTheyCome(batch, clock, log),
        )


class _AsTheyCome(BaseStreamer):
    """Notes when tokens are there, each request's own ones."""

    def __init__(self, batch: list[tuple[int, Arrival]], clock: Clock, log: Log) -> None:
        self._batch = batch
        self._clock = clock
        self._log = log
        self._steps = -1  # the prompts come first

    def put(self, value: torch.Tensor) -> None:
        self._steps += 1
        if self._steps == 0:
            return
        now = self._clock.now()
        for (number, arrival), token in zip(self._batch, value.tolist(), strict=True):
            if self._steps <= arrival.new_tokens:
                self._log.add(number, token, now, arrival.new_tokens)

    def end(self) -> None:
        pass
