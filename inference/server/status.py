"""What a server has done since its start, and what it holds and does now, for operators."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from inference.engine.request import Chunk
from inference.server.admission import Admission
from inference.server.backend import Backend, Found


class Tally:
    """Counts of requests, since the start."""

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self.found: Counter[Found] = Counter()
        """Requests that named an adapter, by where it was."""
        self.ended: Counter[str] = Counter()
        """By how they did: a finish reason, SCORED, or the code of a refusal or a failure."""
        self.tokens = 0
        """Read and written, of generations that have ended."""

    def heard_last(self, event: object) -> None:
        """The model has done with a request. Failures are counted where they are answered."""
        if isinstance(event, Chunk) and event.prediction is not None:
            self.ended[event.prediction.finish_reason] += 1
            self.tokens += event.prediction.prompt_tokens + event.prediction.completion_tokens


def status(backend: Backend, admission: Admission, tally: Tally) -> dict[str, Any]:
    config = backend.config
    lines = [
        {"organization": organization, "at_work": at_work, "waiting": waiting}
        for organization, (at_work, waiting) in sorted(admission.of_each().items())
    ]
    resident = [{"organization": ref.organization, "digest": ref.digest} for ref in backend.resident()]
    return {
        "base_model": config.engine.base_model,
        "device": backend.device,
        "state": "stopping" if admission.is_closed else "ready" if backend.ready else "loading",
        "up_s": round(time.monotonic() - tally.started_at, 1),
        "slots": config.engine.slots,
        "resident": resident[::-1],  # used last, first
        "places": config.active_limit,
        "at_work": admission.at_work,
        "most_waiting": config.queue_limit,
        "waiting": admission.waiting,
        "organizations": lines,
        "found": {str(found): tally.found[found] for found in Found},
        "ended": dict(tally.ended),
        "tokens": tally.tokens,
    }
