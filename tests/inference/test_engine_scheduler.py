"""Requests share the model, each as if it were alone; places are freed at once; the queue has an end."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.engine.adapters import AdapterWeights
from inference.engine.engine import Engine, EngineConfig
from inference.engine.errors import EngineError
from inference.engine.request import Chunk, FinishReason, GenerationRequest, Prediction
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence

Read = Callable[[Path], AdapterWeights]
LONG = GenerationRequest("def", max_new_tokens=120, temperature=1.0, seed=3)


class Answer:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __call__(self, event: Any) -> None:
        self.events.put(event)

    def next(self) -> Any:
        return self.events.get(timeout=20)

    def prediction(self) -> Prediction:
        """Wait for the end; the pieces must add up to it, and be numbered from 1."""
        text, number = "", 0
        while True:
            event = self.next()
            assert isinstance(event, Chunk), event
            number += 1
            text += event.text
            assert event.sequence == number
            if event.prediction is not None:
                assert text == event.prediction.text
                return event.prediction


@pytest.fixture
def scheduler(engine: Engine) -> Iterator[Scheduler]:
    scheduler = Scheduler(engine, active_limit=3, queue_limit=4)
    yield scheduler
    scheduler.close()
    assert not scheduler.alive
    assert engine.slots.in_use() == 0, "a slot was left in use"


def ask(scheduler: Scheduler, request: GenerationRequest, adapter: AdapterWeights | None = None) -> Answer:
    answer = Answer()
    scheduler.generate(request, adapter, answer)
    return answer


def endless(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_end_tokens", frozenset())


def test_interleaved_requests_get_what_each_gets_alone(
    scheduler: Scheduler, engine: Engine, adapters: list[Path], read: Read
) -> None:
    """Two adapters and the base, greedy and sampled, twice each; more adapters than slots."""
    who = [None, *map(read, adapters)]
    requests = [
        GenerationRequest("def add(a, b):\n", max_new_tokens=20),
        GenerationRequest("def add(a, b):\n", max_new_tokens=30, temperature=0.8, top_p=0.9, seed=11),
    ]
    alone = {}
    for number, adapter in enumerate(who):
        for request in requests:
            alone[number, request] = ask(scheduler, request, adapter).prediction()
    together = {}
    for request in requests:
        for numbers in ((0, 1, 2, 3), (3, 1, 0, 2)):
            asked = [(number, ask(scheduler, request, who[number])) for number in numbers]
            together.update({(number, request, numbers): answer.prediction() for number, answer in asked})
    for (number, request, _), prediction in together.items():
        expected = alone[number, request]
        assert prediction.text == expected.text
        assert prediction.adapter_digest == expected.adapter_digest
        adapter = who[number]
        assert prediction.adapter_digest == (adapter.ref.digest if adapter else None)
    assert len({prediction.text for prediction in alone.values()}) == 8


def test_the_same_seed_gives_the_same_text(scheduler: Scheduler) -> None:
    def text(seed: int | None) -> str:
        request = GenerationRequest("def", max_new_tokens=30, temperature=1.0, seed=seed)
        return ask(scheduler, request).prediction().text

    assert text(7) == text(7)
    assert text(7) != text(8)
    assert text(None) != text(None)


def test_finish_reasons_and_counts(scheduler: Scheduler, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(engine, monkeypatch)
    prompt = "def add(a, b):\n"
    whole = ask(scheduler, GenerationRequest(prompt, max_new_tokens=40)).prediction()
    assert (whole.finish_reason, whole.completion_tokens) == (FinishReason.LENGTH, 40)
    assert whole.prompt_tokens == len(engine._tokenizer.encode(prompt))
    assert whole.base_model == "tiny"
    assert whole.adapter_digest is None
    assert whole.seconds > 0

    middle = len(whole.text) // 2
    stop = whole.text[middle : middle + 5]  # more than a token of this small vocabulary
    stopped = ask(scheduler, GenerationRequest(prompt, max_new_tokens=40, stop=(stop,))).prediction()
    assert stopped.finish_reason is FinishReason.STOP
    assert stopped.text == whole.text[: whole.text.index(stop)]
    assert stopped.completion_tokens < 40

    first = engine._tokenizer.encode(whole.text)[0]
    monkeypatch.setattr(engine, "_end_tokens", frozenset({first}))
    ended = ask(scheduler, GenerationRequest(prompt, max_new_tokens=40)).prediction()
    assert (ended.finish_reason, ended.text, ended.completion_tokens) == (FinishReason.STOP, "", 1)


def test_an_empty_prompt_begins_a_document(scheduler: Scheduler) -> None:
    empty = ask(scheduler, GenerationRequest("", max_new_tokens=20)).prediction()
    start = ask(scheduler, GenerationRequest("<|endoftext|>", max_new_tokens=20)).prediction()
    assert empty.text == start.text
    assert (empty.prompt_tokens, start.prompt_tokens) == (0, 1)


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(scheduler: Scheduler) -> None:
    fits = GenerationRequest("a" * 100, max_new_tokens=28)
    tokens = ask(scheduler, fits).prediction().prompt_tokens
    assert tokens == 100
    with pytest.raises(
        EngineError, match="100 tokens, which with 29 new ones makes 129; tiny has a context of 128"
    ) as no:
        ask(scheduler, GenerationRequest("a" * 100, max_new_tokens=29))
    assert (no.value.code, no.value.field) == ("PROMPT_TOO_LONG", "prompt")
    with pytest.raises(EngineError, match="1000000 tokens"):
        ask(scheduler, GenerationRequest("a" * 1_000_000, max_new_tokens=1))


def test_a_cancelled_request_frees_its_place_within_a_step(
    scheduler: Scheduler, engine: Engine, adapters: list[Path], read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step that begins next is without it, and has whoever waited longest in its place."""
    endless(engine, monkeypatch)
    adapter = read(adapters[0])
    step, stepped = threading.Semaphore(0), threading.Semaphore(0)
    advance = engine.advance
    steps: list[list[Sequence]] = []

    def gated(sequences: list[Sequence]) -> Any:
        steps.append(sequences)
        assert step.acquire(timeout=20)
        try:
            return advance(sequences)
        finally:
            stepped.release()

    def go(count: int) -> None:
        for _ in range(count):
            step.release()
            assert stepped.acquire(timeout=20)

    monkeypatch.setattr(engine, "advance", gated)
    answers = [Answer() for _ in range(4)]
    works: list[Any] = [scheduler.generate(LONG, adapter, answer) for answer in answers]
    go(3)
    assert (scheduler.active, scheduler.queued) == (3, 1)
    begun = len(steps)
    scheduler.cancel(works[0])
    go(2)
    cancelled = answers[0].prediction()
    assert cancelled.finish_reason is FinishReason.CANCELLED
    assert cancelled.adapter_digest == adapter.ref.digest
    last = max(number for number, sequences in enumerate(steps) if works[0].sequence in sequences)
    assert last <= begun, "at most the step that was about to begin"
    assert {works[number].sequence for number in (1, 2, 3)} == set(steps[last + 1])
    for work in works[1:]:
        scheduler.cancel(work)
    step.release(500)
    for answer in answers[1:]:
        assert answer.prediction().finish_reason is FinishReason.CANCELLED
    assert ask(scheduler, GenerationRequest("x", max_new_tokens=1)).prediction().completion_tokens == 1
    assert (scheduler.active, scheduler.queued) == (0, 0)
    assert engine.free_tokens == engine._passes.pages.tokens


def test_a_long_prompt_is_read_between_the_tokens_of_others(
    scheduler: Scheduler, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each step one part of one prompt, in the order of arrival, and a token for whoever decodes."""
    endless(engine, monkeypatch)
    monkeypatch.setattr(engine, "config", replace(engine.config, prompt_tokens_a_step=16))
    advance = engine.advance
    steps: list[list[tuple[int, bool, int]]] = []
    decoding = threading.Event()

    def recorded(sequences: list[Sequence]) -> Any:
        step = [(len(each.request.prompt), each.is_reading, len(each.unread)) for each in sequences]
        steps.append(step)
        outcomes = advance(sequences)
        decoding.set()
        return outcomes

    monkeypatch.setattr(engine, "advance", recorded)
    running = ask(scheduler, GenerationRequest("def", max_new_tokens=100))
    assert decoding.wait(20)
    long = [ask(scheduler, GenerationRequest("a" * length, max_new_tokens=2)) for length in (90, 50)]
    assert [answer.prediction().completion_tokens for answer in (*long, running)] == [2, 2, 100]
    parts = {length: [step for step in steps if (length, True) in [each[:2] for each in step]] for length in (90, 50)}
    assert (len(parts[90]), len(parts[50])) == (6, 4)
    for step in (*parts[90], *parts[50]):
        assert len([each for each in step if each[1]]) == 1
        assert [each for each in step if not each[1]], "somebody decodes"
    assert max(map(steps.index, parts[90])) < min(map(steps.index, parts[50]))


def test_room_for_tokens_is_shared_and_never_exceeded(base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Places for four, room for two at a time: the others wait, and all are served in their order."""
    config = EngineConfig("tiny", base_path, device="cpu", slots=1, max_rank=8, cache_tokens=128, threads=1)
    engine = Engine(config)
    endless(engine, monkeypatch)
    advance = engine.advance
    at_once: list[int] = []

    def recorded(sequences: list[Sequence]) -> Any:
        at_once.append(len(sequences))
        assert sum(each.read + len(each.unread) for each in sequences) <= 128
        return advance(sequences)

    monkeypatch.setattr(engine, "advance", recorded)
    scheduler = Scheduler(engine, active_limit=4, queue_limit=8)
    requests = [GenerationRequest("abc"[: 1 + number % 3], max_new_tokens=50 + number) for number in range(6)]
    ended: list[int] = []
    answers = []
    for number, request in enumerate(requests):
        answer = Answer()
        answers.append(answer)

        def listener(event: Any, number: int = number, answer: Answer = answer) -> None:
            if isinstance(event, Chunk) and event.prediction is not None:
                ended.append(number)
            answer(event)

        scheduler.generate(request, None, listener)
    counts = [answer.prediction().completion_tokens for answer in answers]
    scheduler.close()
    assert counts == [50, 51, 52, 53, 54, 55]
    assert max(at_once) == 2
    assert ended == [0, 1, 2, 3, 4, 5]
    assert engine.free_tokens == 128


def test_beyond_the_queue_there_is_a_typed_refusal(
    scheduler: Scheduler, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless(engine, monkeypatch)
    gate = threading.Event()
    entered = threading.Event()
    advance = engine.advance

    def held(sequences: Any) -> Any:
        entered.set()
        assert gate.wait(20)
        return advance(sequences)

    monkeypatch.setattr(engine, "advance", held)
    request = GenerationRequest("def", max_new_tokens=2)
    answers = [ask(scheduler, request)]
    assert entered.wait(20)  # one is active and the model's thread is busy: whoever comes now waits
    answers += [ask(scheduler, request) for _ in range(6)]
    with pytest.raises(EngineError, match="7 requests are under way") as refusal:
        ask(scheduler, request)
    assert (refusal.value.code, refusal.value.retry_after_s) == ("QUEUE_FULL", 2)
    gate.set()
    assert [answer.prediction().completion_tokens for answer in answers] == [2] * 7


def test_one_that_waits_for_a_slot_is_served_in_its_turn(
    scheduler: Scheduler, adapters: list[Path], read: Read
) -> None:
    """Three places, two slots, three adapters: the third waits for a slot, and the fourth behind it."""
    request = GenerationRequest("def", max_new_tokens=40, temperature=1.0, seed=1)
    who = [*map(read, adapters), None]
    answers = [ask(scheduler, request, adapter) for adapter in who]
    digests = [answer.prediction().adapter_digest for answer in answers]
    assert digests == [adapter.ref.digest if adapter else None for adapter in who]


def test_log_probabilities_are_told_with_their_tokens(scheduler: Scheduler) -> None:
    request = GenerationRequest("def add(a, b):\n", max_new_tokens=20, temperature=0.9, top_k=4, seed=5, logprobs=True)
    answer = ask(scheduler, request)
    told: list[float] = []
    while True:
        chunk = answer.next()
        told += chunk.logprobs
        if chunk.prediction is not None:
            break
    assert len(told) == chunk.prediction.completion_tokens
    assert tuple(told) == chunk.prediction.logprobs
    assert all(-20 < one <= 0 for one in told)
    assert chunk.prediction.to_json()["logprobs"] == chunk.prediction.logprobs
    silent = ask(scheduler, replace(request, logprobs=False)).prediction()
    assert silent.text == chunk.prediction.text
    assert "logprobs" not in silent.to_json()


def test_a_step_that_fails_fails_its_request_alone(
    scheduler: Scheduler, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = engine._passes._logits
    request = GenerationRequest("a" * 7, max_new_tokens=3)
    its = str(engine.encode_prompt(request)).strip("[]")

    def sometimes(tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        if its in str(tokens.flatten().tolist()):  # alone, or beside another's prompt
            raise ZeroDivisionError
        return forward(tokens, *rest)

    monkeypatch.setattr(engine._passes, "_logits", sometimes)
    good = ask(scheduler, LONG)
    bad = ask(scheduler, request)
    failure = bad.next()
    assert isinstance(failure, EngineError)
    assert failure.code == "INTERNAL"
    assert good.prediction().completion_tokens > 0


def test_a_slot_that_holds_another_adapter_is_never_used(
    scheduler: Scheduler, engine: Engine, adapters: list[Path], read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = read(adapters[0]), read(adapters[1])
    monkeypatch.setattr(engine.slots, "holder", lambda slot: second.ref)
    failure = ask(scheduler, LONG, first).next()
    assert isinstance(failure, EngineError)
    assert failure.code == "INTERNAL"


def test_closing_tells_everybody(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    endless(engine, monkeypatch)
    scheduler = Scheduler(engine, active_limit=1, queue_limit=4)
    answers = [ask(scheduler, LONG) for _ in range(3)]
    assert isinstance(answers[0].next(), Chunk)
    scheduler.close()
    for answer in answers:
        while isinstance(event := answer.next(), Chunk):
            pass
        assert isinstance(event, EngineError)
        assert event.code == "SHUTTING_DOWN"
    with pytest.raises(EngineError) as refusal:
        ask(scheduler, LONG)
    assert refusal.value.code == "SHUTTING_DOWN"


def test_a_listener_that_fails_frees_its_place(scheduler: Scheduler) -> None:
    def fails(event: Any) -> None:
        raise RuntimeError("the event loop is closed")

    for _ in range(3):
        scheduler.generate(LONG, None, fails)
    assert ask(scheduler, GenerationRequest("x", max_new_tokens=2)).prediction().completion_tokens <= 2
    assert scheduler.queued == 0
