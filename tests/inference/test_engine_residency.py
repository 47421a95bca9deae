"""Adapters on their way: fetched while their requests wait, copied into slots one at a time, and nobody waits for others'."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from inference.engine.adapters import AdapterRef, AdapterStore, AdapterWeights
from inference.engine.engine import Engine
from inference.engine.errors import EngineError
from inference.engine.request import Chunk, FinishReason, GenerationRequest, Prediction
from inference.engine.scheduler import Scheduler
from inference.engine.slots import SlotTable
from tests.inference.conftest import ref_of

Read = Callable[[Path], AdapterWeights]
SHORT = GenerationRequest("def", max_new_tokens=2)


class Storage:
    """Folders by key; what is held back comes when it is let go."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders = {ref_of(folder).key: folder for folder in folders}
        self.held: dict[str, threading.Event] = {}
        self.asked: list[str] = []

    def __call__(self, key: str, digest: str) -> Path:
        self.asked.append(key)
        if key in self.held:
            assert self.held[key].wait(20)
        if key not in self.folders:
            raise FileNotFoundError(key)
        return self.folders[key]

    def hold(self, ref: AdapterRef) -> threading.Event:
        self.held[ref.key] = threading.Event()
        return self.held[ref.key]


@pytest.fixture
def storage(adapters: list[Path]) -> Storage:
    return Storage(adapters)


@pytest.fixture
def store(engine: Engine, storage: Storage) -> AdapterStore:
    return AdapterStore(storage, engine.adapter_limits, capacity=2)


@pytest.fixture
def scheduler(engine: Engine) -> Iterator[Scheduler]:
    scheduler = Scheduler(engine, active_limit=2, queue_limit=8)
    yield scheduler
    scheduler.close()
    assert engine.slots.in_use() == 0
    assert engine.free_tokens == engine._passes.pages.tokens


def ask(scheduler: Scheduler, request: GenerationRequest, adapter: Any) -> queue.SimpleQueue[Any]:
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    scheduler.generate(request, adapter, heard.put)
    return heard


def end(heard: queue.SimpleQueue[Any]) -> Prediction | EngineError:
    while True:
        event = heard.get(timeout=20)
        if isinstance(event, EngineError):
            return event
        assert isinstance(event, Chunk)
        if event.prediction is not None:
            return event.prediction


def test_who_comes_later_does_not_wait_for_anothers_adapter(
    scheduler: Scheduler, store: AdapterStore, storage: Storage, adapters: list[Path]
) -> None:
    slow, quick = ref_of(adapters[0]), ref_of(adapters[1])
    arrives = storage.hold(slow)
    first = ask(scheduler, SHORT, store.prefetch(slow))
    others = [ask(scheduler, SHORT, adapter) for adapter in (store.prefetch(quick), None)]
    digests = [end(heard).adapter_digest for heard in others]  # type: ignore[union-attr]
    assert digests == [quick.digest, None]
    assert first.empty()
    assert scheduler.queued == 1
    arrives.set()
    answer = end(first)
    assert isinstance(answer, Prediction)
    assert answer.adapter_digest == slow.digest


def test_what_does_not_arrive_is_typed_and_the_next_request_is_served(
    scheduler: Scheduler, store: AdapterStore, storage: Storage, copied: Path
) -> None:
    registered = ref_of(copied)
    storage.folders[registered.key] = copied
    weights = copied / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    gone = AdapterRef("org-1", "gone", "f" * 64)
    failures = [end(ask(scheduler, SHORT, store.prefetch(ref))) for ref in (registered, gone)]
    assert [failure.code for failure in failures] == ["ADAPTER_DIGEST_MISMATCH", "ADAPTER_NOT_FOUND"]  # type: ignore[union-attr]
    content[-1] ^= 1
    weights.write_bytes(content)
    for heard in (ask(scheduler, SHORT, None), ask(scheduler, SHORT, store.prefetch(registered))):
        assert isinstance(end(heard), Prediction)


def test_one_that_waits_for_its_adapter_can_be_cancelled(
    scheduler: Scheduler, store: AdapterStore, storage: Storage, adapters: list[Path]
) -> None:
    arrives = storage.hold(ref_of(adapters[0]))
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
    work = scheduler.generate(SHORT, store.prefetch(ref_of(adapters[0])), heard.put)
    scheduler.cancel(work)
    answer = end(heard)
    assert isinstance(answer, Prediction)
    assert (answer.finish_reason, answer.completion_tokens) == (FinishReason.CANCELLED, 0)
    assert scheduler.queued == 0
    arrives.set()


def test_an_adapter_is_fetched_once_for_all_who_wait(
    store: AdapterStore, storage: Storage, adapters: list[Path]
) -> None:
    """Whoever waits takes no thread: ten waiting for one do not keep another from being fetched."""
    slow, quick = ref_of(adapters[0]), ref_of(adapters[1])
    arrives = storage.hold(slow)
    waiting = [store.prefetch(slow) for _ in range(10)]
    assert store.prefetch(quick).result(timeout=20).ref == quick
    assert not any(future.done() for future in waiting)
    arrives.set()
    assert {id(future.result(timeout=20)) for future in waiting} == {id(store.get(slow))}
    assert sorted(storage.asked) == sorted([slow.key, quick.key])
    assert store.prefetch(slow).done(), "what is in host memory is there at once"


def test_while_others_run_a_step_waits_for_one_load(
    engine: Engine, adapters: list[Path], read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that come with adapters of their own join in two steps, and who is running has a token between them."""
    happened: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    fill, advance = SlotTable._fill, engine.advance

    def filling(table: SlotTable, slot: int, weights: AdapterWeights) -> None:
        happened.append("load")
        fill(table, slot, weights)

    def advancing(sequences: Any) -> Any:
        begun.set()
        assert go_on.wait(20)
        happened.append("step")
        return advance(sequences)

    monkeypatch.setattr(SlotTable, "_fill", filling)
    monkeypatch.setattr(engine, "advance", advancing)
    monkeypatch.setattr(engine, "_end_tokens", frozenset({-1}))
    for ref in engine.slots.resident():  # whatever the tests before have left
        slot = engine.slots._resident.pop(ref)
        del engine.slots._holders[slot]
        engine.slots._free.append(slot)
    scheduler = Scheduler(engine, active_limit=3, queue_limit=8)
    running = ask(scheduler, GenerationRequest("def", max_new_tokens=6), None)
    assert begun.wait(20)
    joining = [ask(scheduler, SHORT, read(adapters[number])) for number in (0, 1)]
    go_on.set()
    answers = [end(heard) for heard in (running, *joining)]
    scheduler.close()
    assert all(isinstance(answer, Prediction) for answer in answers)
    assert [what for what in happened if what == "load"] == ["load", "load"]
    first = happened.index("load")
    assert happened[first : first + 3] == ["load", "step", "load"]


def test_a_load_that_fails_leaves_the_slot_to_others(scheduler: Scheduler, adapters: list[Path], read: Read) -> None:
    weights = read(adapters[0])
    layers: Any = dict.fromkeys(weights.layers, ("no matrix", "and none"))
    odd = AdapterWeights(AdapterRef("org-1", "odd", "e" * 64), weights.rank, layers)
    for _ in range(3):  # more often than there are slots
        failure = end(ask(scheduler, SHORT, odd))
        assert isinstance(failure, EngineError)
        assert failure.code == "INTERNAL"
    assert isinstance(end(ask(scheduler, SHORT, weights)), Prediction)
