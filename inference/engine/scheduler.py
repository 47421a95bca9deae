"""One thread owns the model; whatever wants it joins and leaves between steps.

A step gives each generation that has read its prompt a token, in one pass; reads as much of waiting prompts as the engine
allows beside that, so that nobody stands still while a long one is read; and scores one row. Waiting work is admitted in
the order of its arrival, as soon as its adapter is in host memory and a place, room for its tokens, and, for its adapter,
a slot is free.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from inference.engine.engine import Engine
from inference.engine.errors import EngineError
from inference.engine.request import Chunk, GenerationRequest, Score
from inference.engine.slots import NO_ADAPTER
from inference.engine.work import Adapter, Generation, Scoring, Work

__all__ = ["Scheduler", "Work", "shutting_down"]

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 2
CLOSE_S = 5.0
"""For the step in hand to end, when it is to close."""
LEAST_READ_TOKENS = 32
"""What reading a short prompt counts as: its pass costs more than its tokens."""


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
        self.admitted = 0
        """Pieces of work with an adapter that have got a place; those whose adapter was in no slot took a load."""
        self.stepped_at = time.monotonic()
        """When a step last ended. A step waits for the device: for all that it computes, or for what the one before left."""
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
        adapter: Adapter,
        listener: Callable[[Chunk | EngineError], None],
    ) -> Work:
        """Queue a generation. Raises EngineError PROMPT_TOO_LONG, QUEUE_FULL, and SHUTTING_DOWN."""
        return self._enqueue(Generation(request, self._engine.encode_prompt(request), adapter, listener))

    def score(
        self,
        rows: list[Mapping[str, Any]],
        max_tokens: int,
        adapter: Adapter,
        listener: Callable[[Score | EngineError], None],
    ) -> Work:
        """Queue the scoring of rows. Raises EngineError INVALID, QUEUE_FULL, and SHUTTING_DOWN."""
        return self._enqueue(Scoring(self._engine.encode_rows(rows, max_tokens), adapter, listener))

    def cancel(self, work: Work) -> None:
        """Free the work's place before the next step; what has ended stays as it is."""
        with self._wake:
            work.cancelled = True
            self._wake.notify()

    def close(self, timeout_s: float = CLOSE_S) -> None:
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
        work.when_it_can_begin(self._look_again)
        return work

    def _look_again(self) -> None:
        with self._wake:
            self._wake.notify()

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(self._has_something_to_do)
                    if self._closing:
                        return
                self._drop_cancelled()
                self._admit()
                if self._active:
                    self._step()
                    self.stepped_at = time.monotonic()
        finally:
            with self._wake:
                self._closing = True
            for work in [*self._active, *self._queue]:
                work.tell(shutting_down())
            for work in self._active:
                work.end(self._engine)
            self._active.clear()
            self._queue.clear()

    def _has_something_to_do(self) -> bool:
        return self._closing or bool(self._active) or any(work.can_begin or work.cancelled for work in self._queue)

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
        """Give places to those who have waited longest; nobody overtakes one who waits for a slot, or for room.

        Whose adapter is still being fetched is passed over. While others run, a step waits for one adapter to be copied
        into a slot, and not for a second one.
        """
        loads = self._engine.slots.loads
        with self._wake:
            waiting = list(self._queue)  # only this thread takes from it
        for work in waiting:
            if len(self._active) >= self._active_limit:
                return
            if not work.can_begin:
                continue
            try:
                has_to_wait = self._active and self._engine.slots.loads > loads
                if has_to_wait and not self._engine.slots.holds(work.adapter):
                    return
                if not work.begin(self._engine):
                    return
            except Exception as error:
                with self._wake:
                    self._queue.remove(work)
                work.fail(error)
                continue
            self.admitted += work.slot != NO_ADAPTER
            with self._wake:
                self._queue.remove(work)
                self._active.append(work)

    def _step(self) -> None:
        for work in list(self._active):
            if not self._has_its_adapter(work):
                work.fail(RuntimeError("A slot holds another adapter than the one that was asked for."))
                self._leave(work)
        generations = self._next_generations()
        sequences = [work.sequence for work in generations if work.sequence is not None]
        try:
            outcomes = self._engine.advance(sequences) if sequences else []
        except Exception as error:
            outcomes = [error] * len(sequences)
        for work, outcome in zip(generations, outcomes, strict=True):
            if work.publish(self._engine, outcome):
                self._leave(work)
        self._score()

    def _has_its_adapter(self, work: Work) -> bool:
        return self._engine.slots.holder(work.slot) == (None if work.adapter is None else work.adapter.ref)

    def _next_generations(self) -> list[Generation]:
        """All that decode, and of those that read, in the order of their arrival, as many as a step has time for."""
        most = self._engine.config.prompt_tokens_a_step
        chosen, left, is_first = [], most, True
        for work in self._active:
            if not isinstance(work, Generation) or work.sequence is None:
                continue
            if work.sequence.is_reading:
                cost = max(min(len(work.sequence.unread), most), LEAST_READ_TOKENS)
                if cost > left and not is_first:
                    left = 0  # a shorter one behind it waits its turn
                    continue
                left, is_first = left - cost, False
            chosen.append(work)
        return chosen

    def _score(self) -> None:
        """One row of the scoring that has waited longest for one."""
        work = next((work for work in self._active if isinstance(work, Scoring)), None)
        if work is None:
            return
        try:
            finished = work.advance(self._engine)
        except Exception as error:
            work.fail(error)
            finished = True
        if finished:
            self._leave(work)
        else:
            self._active.remove(work)
            self._active.append(work)

    def _leave(self, work: Work) -> None:
        self._active.remove(work)
        work.end(self._engine)


def shutting_down() -> EngineError:
    message = "The inference server is stopping; try again in a moment."
    return EngineError("SHUTTING_DOWN", message, retry_after_s=RETRY_AFTER_S)
