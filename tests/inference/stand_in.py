"""An inference server that answers as a test tells it, when it may."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.rows import BASE

PREDICTION = {"text": "ab", "prompt_tokens": 3, "completion_tokens": 4, "finish_reason": "LENGTH"}
PREDICTION |= {"adapter_digest": None, "base_model": BASE, "seconds": 0.1}
PIECES = [
    {"sequence": 1, "text": "a", "tokens": 5},
    {"sequence": 2, "text": "b", "tokens": 7, "prediction": PREDICTION},
]


@dataclass
class Model:
    """An inference server that answers as it is told, when it may."""

    status: int = 200
    events: list[dict[str, Any]] = field(default_factory=lambda: list(PIECES))
    hangs_after: int | None = None  # pieces
    asked: int = 0
    may_go_on: threading.Event = field(default_factory=threading.Event)
    is_over: bool = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        while not self.may_go_on.is_set():
            await asyncio.sleep(0.02)
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        for number, event in enumerate(self.events):
            while number == self.hangs_after and not self.is_over:
                await asyncio.sleep(0.02)
            body = f"data: {json.dumps(event)}\n\n" if self.status == 200 else json.dumps(event)
            more = number < len(self.events) - 1
            await send({"type": "http.response.body", "body": body.encode(), "more_body": more})
