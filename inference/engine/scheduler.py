"""One thread owns the model; whatever wants it joins and leaves between steps.

A step advances each active piece of work by one forward pass: one token of a generation, one row of a score. Waiting
work is admitted in the order of its arrival, as soon as a place and, for its adapter, a slot is free.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from inference.engine.adapters import AdapterWeights
from inference.engine.engine import Engine
from inference.engine.errors import EngineError
from inference.engine.request import Chunk, FinishReason, GenerationRequest, RowScore, Score
from inference.engine.sequence import Sequence
from inference.engine.slots import NO_ADAPTER
from training.trainer.encoding import Example

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 2


class Work(ABC):
    """What needs the model for some steps. Its listener is called from the model's thread, and must not block."""

    def __init__(self, adapter: AdapterWeights | None, listener: Callable[[Any], None]) -> None:
        self.adapter = adapter
        self.slot = NO_ADAPTER
        self.cancelled = False
        self.started_at = time.monotonic()
        self._listener = listener

    def tell(self, event: Any) -> None:
        """Hand an event to the listener; one that fails has nobody to tell, and cancels the work."""
        try:
            self._listener(event)
        except Exception:
            self.cancelled = True
            logger.exception("A listener failed")

    @abstractmethod
    def begin(self, engine: Engine) -> None:
        """The work has a place, and `slot` is its adapter's."""

    @abstractmethod
    def advance(self, engine: Engine) -> bool:
        """Do one step; return whether that was the last."""

    @abstractmethod
    def abandon(self, engine: Engine) -> None:
        """It was cancelled."""


class Generation(Work):
    """Tells its listener Chunks, the last one with the prediction, or an EngineError."""

    def __init__(
        self,
        request: GenerationRequest,
        prompt: list[int],
        adapter: AdapterWeights | None,
        listener: Callable[[Chunk | EngineError], None],
    ) -> None:
        super().__init__(adapter, listener)
        self._request = request
        self._prompt = prompt
        self._sequence: Sequence | None = None
        self._chunks = 0

    def begin(self, engine: Engine) -> None:
        self._sequence = engine.begin(self._request, self._prompt, self.slot)

    def advance(self, engine: Engine) -> bool:
        assert self._sequence is not None
        self._publish(engine, self._sequence, engine.advance(self._sequence))
        return self._sequence.finish_reason is not None

    def abandon(self, engine: Engine) -> None:
        if self._sequence is None:
            self.begin(engine)
        assert self._sequence is not None
        self._publish(engine, self._sequence, self._sequence.cancel())

    def _publish(self, engine: Engine, sequence: Sequence, text: str) -> None:
        if sequence.finish_reason is not None:
            prediction = engine.predicted(sequence, time.monotonic() - self.started_at)
            self.tell(Chunk(self._next_number(), text, sequence.tokens, prediction))
        elif text:
            self.tell(Chunk(self._next_number(), text, sequence.tokens))

    def _next_number(self) -> int:
        self._chunks += 1
        return self._chunks


class Scoring(Work):
    """Tells its listener a Score, or an EngineError."""

    def __init__(
        self,
        rows: list[Example | None],
        adapter: AdapterWeights | None,
        listener: Callable[[Score | EngineError], None],
    ) -> None:
        super().__init__(adapter, listener)
        self._rows = rows
        self._scores: list[RowScore] = []

    def begin(self, engine: Engine) -> None:
        pass

    def advance(self, engine: Engine) -> bool:
        if len(self._scores) < len(self._rows):
            row = self._rows[len(self._scores)]
            self._scores.append(RowScore(0.0, 0) if row is None else engine.score(row, self.slot))
        if len(self._scores) < len(self._rows):
            return False
        holder = engine.slots.holder(self.slot)
        seconds = round(time.monotonic() - self.started_at, 6)
        digest = None if holder is None else holder.digest
        self.tell(Score(tuple(self._scores), digest, engine.config.base_model, seconds))
        return True

    def abandon(self, engine: Engine) -> None:
        message = f"Scoring was cancelled after {len(self._scores)} of {len(self._rows)} rows with {engine.config.base_model}."
        self.tell(EngineError(FinishReason.CANCELLED, message))


class Scheduler:
    """Runs at most `active_limit` pieces of work at a time, and lets at most `queue_limit` wait."""

    def __init__(self, engine: Engine, *, active_limit: int = 8, queue_limit: int = 64) -> None:
        self._engine = engine
        self._active_limit = active_limit
        self._queue_limit = queue_limit
        self._active: list[Work] = []
        self._queue: deque[Work] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def active(self) -> int:
        return len(self._active)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def generate(
        self,
        request: GenerationRequest,
        adapter: AdapterWeights | None,
        listener: Callable[[Chunk | EngineError], None],
    ) -> Work:
        """Queue a generation. Raises EngineError PROMPT_TOO_LONG, QUEUE_FULL, and SHUTTING_DOWN."""
        return self._enqueue(Generation(request, self._engine.encode_prompt(request), adapter, listener))

    def score(
        self,
        rows: list[Mapping[str, Any]],
        max_tokens: int,
        adapter: AdapterWeights | None,
        listener: Callable[[Score | EngineError], None],
    ) -> Work:
        """Queue the scoring of rows. Raises EngineError INVALID, QUEUE_FULL, and SHUTTING_DOWN."""
        return self._enqueue(Scoring(self._engine.encode_rows(rows, max_tokens), adapter, listener))

    def cancel(self, work: Work) -> None:
        """Free the work's place before the next step; what has ended stays as it is."""
        with self._wake:
            work.cancelled = True
            self._wake.notify()

    def close(self, timeout_s: float = 5.0) -> None:
        """Fail what is active or waiting with SHUTTING_DOWN and end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_s)

    def _enqueue(self, work: Work) -> Work:
        with self._wake:
            if self._closing or not self.alive:
                raise shutting_down()
            under_way = len(self._active) + len(self._queue)
            if under_way >= self._active_limit + self._queue_limit:
                message = f"{under_way} requests are under way already; try again in {RETRY_AFTER_S} seconds."
                raise EngineError("QUEUE_FULL", message, retry_after_s=RETRY_AFTER_S)
            self._queue.append(work)
            self._wake.notify()
        return work

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._closing or self._active or self._queue)
                    if self._closing:
                        return
                self._drop_cancelled()
                self._admit()
                for work in list(self._active):
                    self._step(work)
        finally:
            with self._wake:
                self._closing = True
            for work in [*self._active, *self._queue]:
                work.tell(shutting_down())
            self._active.clear()
            self._queue.clear()

    def _drop_cancelled(self) -> None:
        with self._wake:
            waiting = [work for work in self._queue if work.cancelled]
            for work in waiting:
                self._queue.remove(work)
        for work in waiting:
            work.abandon(self._engine)
        for work in [work for work in self._active if work.cancelled]:
            work.abandon(self._engine)
            self._leave(work)

    def _admit(self) -> None:
        """Give places to those who have waited longest; nobody overtakes one who waits for a slot."""
        while self._queue and len(self._active) < self._active_limit:
            work = self._queue[0]  # only this thread takes from the queue
            try:
                slot = self._engine.slots.acquire(work.adapter)
            except Exception:
                logger.exception("Loading an adapter into a slot failed")
                with self._wake:
                    self._queue.popleft()
                work.tell(_internal())
                continue
            if slot is None:
                return
            work.slot = slot
            with self._wake:
                self._active.append(self._queue.popleft())
            work.begin(self._engine)

    def _step(self, work: Work) -> None:
        try:
            holder = self._engine.slots.holder(work.slot)
            if holder != (None if work.adapter is None else work.adapter.ref):
                raise RuntimeError("A slot holds another adapter than the one that was asked for.")
            finished = work.advance(self._engine)
        except EngineError as error:
            work.tell(error)
            finished = True
        except Exception:
            logger.exception("A step failed")
            work.tell(_internal())
            finished = True
        if finished:
            self._leave(work)

    def _leave(self, work: Work) -> None:
        self._active.remove(work)
        self._engine.slots.release(work.slot)


def shutting_down() -> EngineError:
    message = "The inference server is stopping; try again in a moment."
    return EngineError("SHUTTING_DOWN", message, retry_after_s=RETRY_AFTER_S)


def _internal() -> EngineError:
    return EngineError("INTERNAL", "The inference server failed at this request; its log has the reason.")
