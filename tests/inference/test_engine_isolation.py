"""Many organizations at once, with adapters loaded and evicted, requests cancelled, and the scheduler ended in between:
every answer is its own adapter's, and says so; every request hears how it ended; no place, slot, or room is lost.
"""

from __future__ import annotations

import queue
import random
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inference.engine.adapters import AdapterRef, AdapterStore, AdapterWeights
from inference.engine.engine import Engine, EngineConfig
from inference.engine.errors import EngineError
from inference.engine.request import Chunk, FinishReason, GenerationRequest, Prediction
from inference.engine.scheduler import Scheduler
from inference.engine.slots import SlotTable
from tests.inference.made import SHIPPED, SHIPPED_NAME, write_adapter

ORGANIZATIONS = 40


class MockLayer:
    """Holds the digest that was loaded where a layer holds matrices."""

    def __init__(self) -> None:
        self.held: dict[int, str] = {0: "base"}

    def load(self, slot: int, weights: str, rank: int, scaling: float) -> int:
        self.held[slot] = weights
        return len(weights)


class MockSequence:
    """Reads its prompt in one step or two; each token is a word made of the digest in its slot."""

    def __init__(self, request: GenerationRequest, slot: int) -> None:
        self.request = request
        self.slot = slot
        self.unread = list(range(len(request.prompt)))
        self.logprobs = None
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.text = ""

    @property
    def is_reading(self) -> bool:
        return self.completion_tokens == 0

    @property
    def tokens(self) -> int:
        return len(self.request.prompt) + self.completion_tokens

    def cancel(self) -> str:
        self.finish_reason = FinishReason.CANCELLED
        return ""


class MockEngine:
    """An engine whose slots, admission, and room are real, and whose model is a checksum."""

    def __init__(self, slots: int, tokens: int) -> None:
        self.config = SimpleNamespace(base_model="mock", prompt_tokens_a_step=8)
        self.layer = MockLayer()
        self.slots = SlotTable({"layer": self.layer}, slots)  # type: ignore[dict-item]
        self.tokens = self.free = tokens
        self.most_used = 0

    def encode_prompt(self, request: GenerationRequest) -> list[int]:
        return list(range(len(request.prompt)))

    def begin(self, request: GenerationRequest, prompt: list[int], slot: int) -> MockSequence | None:
        room = len(prompt) + request.max_new_tokens
        if room > self.free:
            return None
        self.free -= room
        self.most_used = max(self.most_used, self.tokens - self.free)
        return MockSequence(request, slot)

    def end(self, sequence: MockSequence) -> None:
        self.free += len(sequence.request.prompt) + sequence.request.max_new_tokens

    def advance(self, sequences: list[MockSequence]) -> list[str]:
        return [self._advance(sequence) for sequence in sequences]

    def _advance(self, sequence: MockSequence) -> str:
        sequence.unread = sequence.unread[8:]
        if sequence.unread:
            return ""
        piece = word(self.layer.held[sequence.slot], sequence.request.prompt, sequence.completion_tokens)
        sequence.text += piece
        sequence.completion_tokens += 1
        if sequence.completion_tokens == sequence.request.max_new_tokens:
            sequence.finish_reason = FinishReason.LENGTH
        return piece

    def predicted(self, sequence: MockSequence, seconds: float) -> Prediction:
        holder = self.slots.holder(sequence.slot)
        digest = None if holder is None else holder.digest
        reason = sequence.finish_reason
        assert reason is not None
        prompt = len(sequence.request.prompt)
        return Prediction(sequence.text, prompt, sequence.completion_tokens, reason, digest, "mock", seconds)


def word(digest: str, prompt: str, number: int) -> str:
    return f"{zlib.crc32(f'{digest}/{prompt}/{number}'.encode()):08x} "


def mock_answer(ref: AdapterRef | None, request: GenerationRequest) -> str:
    digest = "base" if ref is None else ref.digest
    return "".join(word(digest, request.prompt, number) for number in range(request.max_new_tokens))


class MockStore(AdapterStore):
    """Its files are made up; what is kept, forgotten, and waited for is real."""

    def __init__(self, capacity: int) -> None:
        super().__init__(lambda key, digest: Path(), None, capacity)  # type: ignore[arg-type]

    def _load(self, ref: AdapterRef) -> AdapterWeights:
        return AdapterWeights(ref, 8, {"layer": ref.digest})  # type: ignore[dict-item]


class Crowd:
    """Asks without end, as many at a time as the queue takes, and checks each answer."""

    def __init__(
        self,
        engine: Any,
        store: AdapterStore,
        expected: Callable[[AdapterRef | None, GenerationRequest], str],
        seed: int,
        active_limit: int,
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[Any] = []
        self._engine = engine
        self._store = store
        self._expected = expected
        self._random = random.Random(seed)
        self._active_limit = active_limit
        self._heard: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        self._open: dict[int, tuple[AdapterRef | None, GenerationRequest, bool]] = {}
        self._scheduler = self._start()

    def _start(self) -> Scheduler:
        return Scheduler(self._engine, active_limit=self._active_limit, queue_limit=2 * self._active_limit)

    def ask(self, number: int, ref: AdapterRef | None, request: GenerationRequest) -> None:
        """One in twenty is cancelled at some time."""
        is_cancelled = self._random.random() < 0.05
        adapter = None if ref is None else self._store.prefetch(ref)
        self._open[number] = ref, request, is_cancelled

        def listener(event: Any) -> None:
            if not isinstance(event, Chunk) or event.prediction is not None:
                self._heard.put((number, event))

        while True:
            try:
                work = self._scheduler.generate(request, adapter, listener)
                break
            except EngineError as refusal:
                if refusal.code != "QUEUE_FULL":
                    raise
                self._settle()
        if is_cancelled:
            self._scheduler.cancel(work)

    def crash(self) -> None:
        """The scheduler ends with requests under way, and another one takes its place."""
        self._scheduler.close()
        assert not self._scheduler.alive
        self._scheduler = self._start()

    def finish(self) -> None:
        while self._open:
            self._settle()
        self._scheduler.close()

    def _settle(self) -> None:
        number, event = self._heard.get(timeout=60)
        ref, request, was_cancelled = self._open.pop(number)
        if isinstance(event, EngineError):
            self.outcomes[event.code] += 1
            return
        prediction = event.prediction
        expected = self._expected(ref, request)
        if prediction.finish_reason is FinishReason.CANCELLED:
            self.outcomes["CANCELLED"] += 1
            is_right = was_cancelled and expected.startswith(prediction.text)
        else:
            self.outcomes["ANSWERED"] += 1
            is_right = prediction.text == expected
            is_right &= prediction.adapter_digest == (None if ref is None else ref.digest)
        if not is_right:
            self.wrong.append((ref, request, prediction, expected))


def crowded(count: int, seed: int, crash_every: int) -> tuple[Crowd, MockEngine]:
    refs = [AdapterRef(f"org-{number % ORGANIZATIONS}", f"{number}", f"{number:064x}") for number in range(200)]
    refs += [AdapterRef("another", ref.key, ref.digest) for ref in refs[:5]]  # equal files of two organizations
    shares = [1 / (1 + number) for number in range(len(refs))]  # Zipf: some are hot, most are not
    choice = random.Random(seed)
    engine = MockEngine(slots=8, tokens=100)
    crowd = Crowd(engine, MockStore(capacity=32), mock_answer, seed, active_limit=16)
    for number, ref in enumerate(choice.choices(refs, shares, k=count)):
        prompt = f"{choice.randrange(1000)}" * choice.randrange(1, 5)
        asked = None if choice.random() < 0.05 else ref
        crowd.ask(number, asked, GenerationRequest(prompt, max_new_tokens=choice.randrange(1, 6)))
        if number % crash_every == crash_every - 1:
            crowd.crash()
    crowd.finish()
    return crowd, engine


def check(crowd: Crowd, engine: MockEngine, count: int) -> None:
    assert crowd.wrong == []
    assert sum(crowd.outcomes.values()) == count, "each request hears how it ended, once"
    assert set(crowd.outcomes) == {"ANSWERED", "CANCELLED", "SHUTTING_DOWN"}
    assert crowd.outcomes["ANSWERED"] > 0.85 * count
    assert engine.slots.in_use() == 0
    assert engine.free == engine.tokens
    assert 90 < engine.most_used <= 100, "the room was fought for, and never exceeded"
    assert engine.slots.loads > count / 20, "adapters come and go"


def test_every_answer_is_its_own_adapters() -> None:
    check(*crowded(4_000, seed=1, crash_every=1_500), 4_000)


@pytest.mark.slow
@pytest.mark.faults
def test_a_million_requests() -> None:
    check(*crowded(1_000_000, seed=2, crash_every=50_000), 1_000_000)


def test_a_slot_that_is_filled_with_anothers_weights_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tests above rely on: a layer that mixes up its slots gives wrong answers, and they are found."""
    load = MockLayer.load
    monkeypatch.setattr(MockLayer, "load", lambda self, slot, *others: load(self, slot % 7 + 1, *others))
    crowd, _ = crowded(2_000, seed=3, crash_every=10_000)
    assert len(crowd.wrong) > 100


def of_the_shipped_model(tmp_path: Path, count: int, distinct: int, seed: int) -> None:
    """`count` requests, of `distinct` kinds, each of which is also asked alone; crashes in between."""
    config = EngineConfig(SHIPPED_NAME, SHIPPED, device="cpu", slots=4, max_rank=16, batch=8, threads=1)
    engine = Engine(config)
    choice = random.Random(seed)
    folders: dict[str, Path] = {}
    refs: list[AdapterRef | None] = [None]
    for number in range(12):
        made, ref = write_adapter(
            tmp_path / f"{number}", SHIPPED_NAME, engine.adapter_limits.layers, number, f"org-{number % 5}"
        )
        folders[ref.key] = made
        refs.append(ref)
    store = AdapterStore(lambda key, digest: folders[key], engine.adapter_limits, capacity=6)
    kinds = [
        (
            choice.choice(refs),
            GenerationRequest(
                choice.choice(("def add(a, b):\n", "import os\n", "class A:\n", "")) + "x = 1\n" * choice.randrange(4),
                max_new_tokens=choice.randrange(1, 12),
                temperature=choice.choice((0.0, 1.0)),
                seed=number,
            ),
        )
        for number in range(distinct)
    ]
    alone = {}
    scheduler = Scheduler(engine, active_limit=1)
    for ref, request in kinds:
        heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        scheduler.generate(request, None if ref is None else store.prefetch(ref), heard.put)
        while (event := heard.get(timeout=60)).prediction is None:
            pass
        alone[ref, request] = event.prediction.text
    scheduler.close()
    assert len(set(alone.values())) > distinct // 2

    crowd = Crowd(engine, store, lambda ref, request: alone[ref, request], seed, active_limit=8)
    for number in range(count):
        ref, request = choice.choice(kinds)
        crowd.ask(number, ref, request)
        if number == count // 2:
            crowd.crash()
    crowd.finish()
    assert crowd.wrong == []
    assert sum(crowd.outcomes.values()) == count
    assert crowd.outcomes["ANSWERED"] > 0.7 * count
    assert engine.slots.in_use() == 0
    assert engine.free_tokens == engine._passes.pages.tokens


def test_the_shipped_model_answers_as_it_does_alone(tmp_path: Path) -> None:
    of_the_shipped_model(tmp_path, count=150, distinct=30, seed=4)


@pytest.mark.slow
@pytest.mark.faults
def test_two_thousand_requests_to_the_shipped_model(tmp_path: Path) -> None:
    of_the_shipped_model(tmp_path, count=2_000, distinct=200, seed=5)
