"""An inference server in a thread of this process, as the tests ask it over real HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from inference import client
from inference.server.app import InferenceApp
from inference.server.backend import Backend
from inference.tickets import Ticket, issue, issue_status
from training.trainer.artifact import adapter_digest

SECRET = "an installation's secret, 32 bytes or longer"
PROMPT = "def add(a, b):\n"
LONG = {"prompt": "def", "max_new_tokens": 120, "temperature": 1.0, "seed": 3}


@dataclass(frozen=True)
class Running:
    url: str
    app: InferenceApp
    storage: Path

    @property
    def backend(self) -> Backend:
        return self.app.backend

    @property
    def load(self) -> tuple[int, int]:
        """Requests at work, and waiting."""
        status = self.status()
        return status["at_work"], status["waiting"]

    def status(self) -> dict[str, Any]:
        return client.status(self.url, issue_status(SECRET))

    def ticket(self, adapter: Path | None = None, max_new_tokens: int = 200, **changes: Any) -> str:
        key = None if adapter is None else f"t/org-1/adapters/{adapter.name}"
        digest = None if adapter is None else adapter_digest(adapter)
        fields = {"organization": "org-1", "base": "tiny", "adapter_key": key, "adapter_digest": digest}
        return issue(Ticket(max_new_tokens=max_new_tokens, **(fields | changes)), SECRET)

    def predict(self, request: dict[str, Any], adapter: Path | None = None, **changes: Any) -> dict[str, Any]:
        return client.predict(self.url, self.ticket(adapter, **changes), request, timeout_s=30)

    def post(self, body: dict[str, Any], path: str = "/generate") -> httpx.Response:
        content = json.dumps({"ticket": self.ticket(), **body})
        return httpx.post(self.url + path, content=content, timeout=30, trust_env=False)


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def collect(server: Running, request: dict[str, Any], adapter: Path | None = None) -> list[dict[str, Any]]:
    async with aclosing(client.stream(server.url, server.ticket(adapter), request)) as chunks:
        return [chunk async for chunk in chunks]
