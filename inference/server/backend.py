"""The engine with all that belongs to it, as the HTTP side sees it: load, generate, score, cancel, close."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inference.engine.adapters import AdapterRef, AdapterStore, AdapterWeights
from inference.engine.engine import Engine, EngineConfig
from inference.engine.errors import EngineError, invalid
from inference.engine.request import Chunk, GenerationRequest, Score
from inference.engine.scheduler import Scheduler, Work
from inference.tickets import Ticket

logger = logging.getLogger(__name__)

WARM_UP_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class ServerConfig:
    """How one inference server is run."""

    engine: EngineConfig
    active_limit: int = 8
    """Requests that share the model at a time."""
    queue_limit: int = 64
    """Requests that may wait; the next one is answered QUEUE_FULL."""
    host_adapters: int = 32
    """Adapters kept in host memory beside those in the model's slots."""


class Backend:
    """Nothing works before `load` has returned, which takes as long as reading and quantizing the base model."""

    def __init__(self, config: ServerConfig, fetch: Callable[[str, str], Path]) -> None:
        self.config = config
        self._fetch = fetch
        self._scheduler: Scheduler | None = None
        self._store: AdapterStore | None = None
        self._generated = False
        self._closed = False

    def load(self) -> None:
        """Load the base model and generate a token with it. Raises what went wrong."""
        engine = Engine(replace(self.config.engine, batch=self.config.active_limit))
        self._store = AdapterStore(self._fetch, engine.adapter_limits, self.config.host_adapters)
        self._scheduler = Scheduler(engine, active_limit=self.config.active_limit, queue_limit=self.config.queue_limit)
        events: queue.SimpleQueue[Chunk | EngineError] = queue.SimpleQueue()
        self._scheduler.generate(GenerationRequest("def", max_new_tokens=1), None, events.put)
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
    def load_figures(self) -> dict[str, int]:
        scheduler = self._scheduler
        return {"active": scheduler.active, "queued": scheduler.queued} if scheduler else {"active": 0, "queued": 0}

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
        if not self.ready or self._scheduler is None or self._store is None:
            raise EngineError("STARTING", "The base model is being loaded; try again in a moment.", retry_after_s=5)
        if new_tokens > ticket.max_new_tokens:
            message = f"This request may ask for at most {ticket.max_new_tokens} new tokens, not {new_tokens}."
            raise invalid("max_new_tokens", message)
        if ticket.adapter_key is None or ticket.adapter_digest is None:
            return self._scheduler, None
        ref = AdapterRef(ticket.organization, ticket.adapter_key, ticket.adapter_digest)
        return self._scheduler, self._store.prefetch(ref)
