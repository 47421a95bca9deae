"""The clients: each holds a websocket with one subscription, and goes on after its cursor when it is cut off."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

DOCUMENT = """
subscription ($id: ID!, $after: Int!) { trainingRunEvents(id: $id, after: $after) {
  __typename sequence at
  ... on StatusChanged { status reason }
  ... on StepLogged { step totalSteps loss learningRate gradNorm tokensPerSecond }
} }
"""
OPEN_TIMEOUT_S = 60.0
RETRY_S = 0.2
PATIENCE_S = 100.0
T = TypeVar("T")


class Watchers:
    """Called from one thread; the sockets live in the event loop of another."""

    def __init__(self) -> None:
        self._watchers: list[Watcher] = []
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def connect(self, url: str, clients: Sequence[tuple[str, str, str]]) -> None:
        """Return when all have been let in; all come at once."""
        self._watchers = [Watcher(url, *client) for client in clients]
        self._run(self._let_in())

    def reconnect(self) -> None:
        """Cut all sockets at once; return when all have been let in again."""
        self._run(self._let_in(again=True))

    def disconnect(self) -> None:
        async def all_end() -> None:
            for watcher in self._watchers:
                watcher.task.cancel()
            await asyncio.wait([watcher.task for watcher in self._watchers])

        self._run(all_end())

    def cpu_s(self) -> float:
        return time.process_time()

    def catch_up(self, last: Mapping[str, int]) -> None:
        """Return when each has heard its run's `last` sequence, or when some probably never will."""
        deadline = time.monotonic() + PATIENCE_S
        while any(each.cursor < last[each.run] for each in self._watchers) and time.monotonic() < deadline:
            time.sleep(0.05)

    def heard(self) -> list[tuple[str, list[tuple[int, int]]]]:
        """By watcher, its run and each (sequence, step) in the order in which they came."""
        return [(watcher.run, watcher.heard) for watcher in self._watchers]

    def latencies(self, since: float, until: float) -> list[float]:
        """Seconds from each event that was logged in this time to each watcher."""
        return [seconds for watcher in self._watchers for at, seconds in watcher.latencies if since <= at < until]

    async def _let_in(self, again: bool = False) -> None:
        for watcher in self._watchers:
            watcher.is_in.clear()
            if again:
                watcher.cut()
            else:
                watcher.task = asyncio.create_task(watcher.watch())
        async with asyncio.timeout(PATIENCE_S):
            for watcher in self._watchers:
                await watcher.is_in.wait()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Watcher:
    task: asyncio.Task[None]

    def __init__(self, url: str, run: str, global_id: str, token: str) -> None:
        self.run = run
        self.cursor = 0
        self.heard: list[tuple[int, int]] = []
        self.latencies: list[tuple[float, float]] = []
        self.is_in = asyncio.Event()
        self._url = url.replace("http", "ws", 1) + "/graphql"
        self._global_id, self._token = global_id, token
        self._socket: ClientConnection | None = None

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(WebSocketException, OSError):
                await self._watch_once()
            await asyncio.sleep(RETRY_S)

    def cut(self) -> None:
        """The network is gone: no closing handshake."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def _watch_once(self) -> None:
        protocols = [Subprotocol("graphql-transport-ws")]
        async with connect(
            self._url,
            subprotocols=protocols,
            compression=None,
            proxy=None,
            ping_interval=None,
            open_timeout=OPEN_TIMEOUT_S,
        ) as self._socket:
            await self._tell(type="connection_init", payload={"authorization": f"Bearer {self._token}"})
            async for text in self._socket:
                message = json.loads(text)
                if message["type"] == "connection_ack":
                    variables = {"id": self._global_id, "after": self.cursor}
                    await self._tell(type="subscribe", id="1", payload={"query": DOCUMENT, "variables": variables})
                    self.is_in.set()
                elif message["type"] == "next":
                    self._note(message["payload"]["data"]["trainingRunEvents"])
                else:
                    raise AssertionError(f"The server says {text!r}.")

    async def _tell(self, **message: Any) -> None:
        assert self._socket is not None
        await self._socket.send(json.dumps(message))

    def _note(self, events: list[dict[str, Any]]) -> None:
        now = time.time()
        for event in events:
            at = datetime.fromisoformat(event["at"]).timestamp()
            self.heard.append((event["sequence"], event.get("step", 0)))
            self.latencies.append((at, now - at))
            self.cursor = event["sequence"]
