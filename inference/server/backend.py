"""The engine with all that belongs to it, as the HTTP side sees it: load, fetch, generate, score, cancel, close."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from inference.engine.adapters import AdapterRef, AdapterStore, AdapterWeights
from inference.engine.engine import Engine, EngineConfig
from inference.engine.errors import EngineError, invalid
from inference.engine.request import Chunk, GenerationRequest, Score
from inference.engine.scheduler import Scheduler, Work, shutting_down
from inference.tickets import Ticket

logger = logging.getLogger(__name__)

WARM_UP_TIMEOUT_S = 120.0
WARM_UP = GenerationRequest("def", max_new_tokens=1)


@dataclass(frozen=True)
class ServerConfig:
    """How one inference server is run."""

    engine: EngineConfig
    active_limit: int = 8
    """Requests that share the model at a time."""
    queue_limit: int = 256
    """Requests that may wait, four full batches; where that many do, whoever has most of them is answered QUEUE_FULL."""
    patience_s: float = 30.0
    """How long a request waits for its place at the model that does not say so itself (WAITED_TOO_LONG)."""
    host_adapters: int = 32
    """Adapters kept in host memory beside those in the model's slots."""


class Found(StrEnum):
    """Where an adapter was when a request came for it."""

    SLOT = "slot"
    MEMORY = "memory"
    STORAGE = "storage"


class _Visit(threading.local):
    """Whether the present thread's look-up went as far as storage."""

    has_fetched = False


class Backend:
    """Nothing works before `load` has returned, which takes as long as reading and quantizing the base model."""

    def __init__(self, config: ServerConfig, fetch: Callable[[str, str], Path]) -> None:
        self.config = config
        self._fetch = fetch
        self._visit = _Visit()
        self._engine: Engine | None = None
        self._scheduler: Scheduler | None = None
        self._store: AdapterStore | None = None
        self._room_tokens = 0
        self._generated = False
        self._closed = False

    def load(self) -> None:
        """Load the base model and generate a token with it. Raises what went wrong."""
        places = self.config.active_limit + 1  # one for `probe`
        engine = Engine(replace(self.config.engine, batch=places))
        self._engine = engine
        self._room_tokens = engine.room_tokens - self.measure(WARM_UP)
        self._store = AdapterStore(self._noted_fetch, engine.adapter_limits, self.config.host_adapters)
        self._scheduler = Scheduler(engine, active_limit=places, queue_limit=self.config.queue_limit)
        events: queue.SimpleQueue[Chunk | EngineError] = queue.SimpleQueue()
        self._scheduler.generate(WARM_UP, None, events.put)
        event = events.get(timeout=WARM_UP_TIMEOUT_S)
        if isinstance(event, EngineError):
            raise event
        self._generated = True
        if self._closed:  # stopped while it was still loading
            self._scheduler.close()

    @property
    def ready(self) -> bool:
        """Whether it has generated, and can again."""
        return self._generated and not self._closed and self._scheduler is not None and self._scheduler.alive

    @property
    def is_broken(self) -> bool:
        """Whether it could generate, and never will again: its thread has died."""
        has_died = self._generated and self._scheduler is not None and not self._scheduler.alive
        return has_died and not self._closed  # in this order: it is closed before its thread ends

    @property
    def stepped_at(self) -> float:
        """When the model last ended a step, by the monotonic clock."""
        return self._scheduler.stepped_at if self._scheduler is not None else 0.0

    @property
    def device(self) -> str:
        return str(self._engine.device) if self._engine else ""

    def resident(self) -> list[AdapterRef]:
        """The adapters in the model's slots."""
        for _ in range(3):
            try:
                return self._engine.slots.resident() if self._engine else []
            except (RuntimeError, KeyError):  # the model's thread was just changing them
                continue
        return []

    def check(self, ticket: Ticket, new_tokens: int) -> None:
        """Raise EngineError STARTING, SHUTTING_DOWN, and INVALID for what the ticket does not permit."""
        if self.is_broken:
            raise shutting_down()
        if not self.ready:
            raise EngineError("STARTING", "The base model is being loaded; try again in a moment.", retry_after_s=5)
        if new_tokens > ticket.max_new_tokens:
            message = f"This request may ask for at most {ticket.max_new_tokens} new tokens, not {new_tokens}."
            raise invalid("max_new_tokens", message)

    def measure(self, request: GenerationRequest) -> int:
        """The tokens that room is set aside for while the request is at work. Raises EngineError PROMPT_TOO_LONG."""
        assert self._engine is not None
        return self._engine.room_of(request, self._engine.encode_prompt(request))

    @property
    def room_tokens(self) -> int:
        """The room for tokens that requests share: all but what `probe` needs."""
        return self._room_tokens

    def fetch(self, ref: AdapterRef) -> Found:
        """Have an adapter in host memory, and say where it was. Blocks while it is read; raises EngineError."""
        assert self._store is not None
        is_in_slot, self._visit.has_fetched = ref in self.resident(), False
        self._store.get(ref)
        if self._visit.has_fetched:  # also for one that is in a slot, and no longer in host memory
            return Found.STORAGE
        return Found.SLOT if is_in_slot else Found.MEMORY

    def probe(self, listener: Callable[[Chunk | EngineError], None]) -> None:
        """Generate a token for nobody; it waits for no place, and no room but where one request has it all. Raises EngineError."""
        assert self._scheduler is not None
        self._scheduler.generate(WARM_UP, None, listener)

    def generate(
        self, ticket: Ticket, request: GenerationRequest, listener: Callable[[Chunk | EngineError], None]
    ) -> Work:
        """Queue what the ticket permits; the adapter is fetched meanwhile. Raises EngineError, and tells the listener."""
        scheduler, adapter = self._prepare(ticket, request.max_new_tokens)
        return scheduler.generate(request, adapter, listener)

    def score(
        self,
        ticket: Ticket,
        rows: list[Mapping[str, Any]],
        max_tokens: int,
        listener: Callable[[Score | EngineError], None],
    ) -> Work:
        """Like `generate`."""
        scheduler, adapter = self._prepare(ticket, 0)
        return scheduler.score(rows, max_tokens, adapter, listener)

    def cancel(self, work: Work) -> None:
        if self._scheduler is not None:
            self._scheduler.cancel(work)

    def close(self) -> None:
        self._closed = True
        if self._scheduler is not None:
            self._scheduler.close()

    def _prepare(self, ticket: Ticket, new_tokens: int) -> tuple[Scheduler, Future[AdapterWeights] | None]:
        self.check(ticket, new_tokens)
        assert self._scheduler is not None
        assert self._store is not None
        ref = adapter_of(ticket)
        return self._scheduler, None if ref is None else self._store.prefetch(ref)

    def _noted_fetch(self, key: str, digest: str) -> Path:
        self._visit.has_fetched = True
        return self._fetch(key, digest)


def adapter_of(ticket: Ticket) -> AdapterRef | None:
    """None for the base model."""
    if ticket.adapter_key is None or ticket.adapter_digest is None:
        return None
    return AdapterRef(ticket.organization, ticket.adapter_key, ticket.adapter_digest)
