"""What needs the model for some steps: a generation, or the scoring of rows."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from inference.engine.adapters import AdapterWeights
from inference.engine.engine import Engine, Outcome
from inference.engine.errors import EngineError
from inference.engine.request import Chunk, FinishReason, GenerationRequest, Prediction, RowScore, Score
from inference.engine.sequence import Sequence
from inference.engine.slots import NO_ADAPTER
from training.trainer.encoding import Example

logger = logging.getLogger(__name__)

Adapter = AdapterWeights | Future[AdapterWeights] | None
"""An adapter in host memory, one on its way there, or none."""


class Work(ABC):
    """Its listener is called from the model's thread, and must not block."""

    def __init__(self, adapter: Adapter, listener: Callable[[Any], None]) -> None:
        self.slot = NO_ADAPTER
        self.cancelled = False
        self.started_at = time.monotonic()
        self._adapter = adapter
        self._listener = listener

    @property
    def can_begin(self) -> bool:
        """Whether its adapter has arrived, or will not."""
        return not isinstance(self._adapter, Future) or self._adapter.done()

    @property
    def adapter(self) -> AdapterWeights | None:
        """The adapter that has arrived. Raises the EngineError with which its fetching ended."""
        if isinstance(self._adapter, Future):
            self._adapter = self._adapter.result(timeout=0)
        return self._adapter

    def when_it_can_begin(self, call: Callable[[], None]) -> None:
        """Call once its adapter has arrived, from whichever thread; at once where it has."""
        if isinstance(self._adapter, Future):
            self._adapter.add_done_callback(lambda _: call())

    def tell(self, event: Any) -> None:
        """Hand an event to the listener; one that fails has nobody to tell, and cancels the work."""
        try:
            self._listener(event)
        except Exception:
            self.cancelled = True
            logger.exception("A listener failed")

    def fail(self, error: Exception) -> None:
        """Tell the listener why there will be no answer; what is no EngineError is our fault, and for the log."""
        if not isinstance(error, EngineError):
            logger.error("A request failed", exc_info=error)
            error = EngineError("INTERNAL", "The inference server failed at this request; its log has the reason.")
        self.tell(error)

    def begin(self, engine: Engine) -> bool:
        """Take a slot, and room for tokens; whether there are both now. Raises what is wrong with the adapter."""
        slot = engine.slots.acquire(self.adapter)
        if slot is None:
            return False
        try:
            has_room = self.settle(engine, slot)
        except BaseException:
            engine.slots.release(slot)
            raise
        if not has_room:
            engine.slots.release(slot)
            return False
        self.slot = slot
        return True

    def end(self, engine: Engine) -> None:
        """Give back what `begin` took."""
        engine.slots.release(self.slot)

    @abstractmethod
    def settle(self, engine: Engine, slot: int) -> bool:
        """Take what else it needs beside the slot; whether there was room for it."""

    @abstractmethod
    def abandon(self, engine: Engine) -> None:
        """It was cancelled."""


class Generation(Work):
    """Tells its listener Chunks, the last one with the prediction, or an EngineError."""

    def __init__(
        self,
        request: GenerationRequest,
        prompt: list[int],
        adapter: Adapter,
        listener: Callable[[Chunk | EngineError], None],
    ) -> None:
        super().__init__(adapter, listener)
        self.sequence: Sequence | None = None
        self._request = request
        self._prompt = prompt
        self._chunks = 0
        self._told_tokens = 0

    def settle(self, engine: Engine, slot: int) -> bool:
        self.sequence = engine.begin(self._request, self._prompt, slot)
        return self.sequence is not None

    def publish(self, engine: Engine, outcome: Outcome) -> bool:
        """Tell what a step came to; whether that was the last."""
        assert self.sequence is not None
        if isinstance(outcome, Exception):
            self.fail(outcome)
            return True
        if self.sequence.finish_reason is not None:
            self._tell(outcome, engine.predicted(self.sequence, time.monotonic() - self.started_at))
            return True
        if outcome:
            self._tell(outcome, None)
        return False

    def abandon(self, engine: Engine) -> None:
        if self.sequence is not None:
            self.publish(engine, self.sequence.cancel())
            return
        seconds = round(time.monotonic() - self.started_at, 6)
        prompt, why = len(self._prompt), FinishReason.CANCELLED
        nothing = Prediction("", prompt, 0, why, None, engine.config.base_model, seconds)
        self.tell(Chunk(1, "", prompt, nothing))

    def end(self, engine: Engine) -> None:
        super().end(engine)
        if self.sequence is not None:
            engine.end(self.sequence)

    def _tell(self, text: str, prediction: Prediction | None) -> None:
        assert self.sequence is not None
        self._chunks += 1
        logprobs = None if self.sequence.logprobs is None else tuple(self.sequence.logprobs[self._told_tokens :])
        self._told_tokens = self.sequence.completion_tokens
        self.tell(Chunk(self._chunks, text, self.sequence.tokens, prediction, logprobs))


class Scoring(Work):
    """Tells its listener a Score, or an EngineError."""

    def __init__(
        self,
        rows: list[Example | None],
        adapter: Adapter,
        listener: Callable[[Score | EngineError], None],
    ) -> None:
        super().__init__(adapter, listener)
        self._rows = rows
        self._scores: list[RowScore] = []

    def settle(self, engine: Engine, slot: int) -> bool:
        return True

    def advance(self, engine: Engine) -> bool:
        """Score one row; whether that was the last."""
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
