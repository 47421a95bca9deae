"""Random clients: they upload, submit, cancel, look, and watch, and write down what they asked and what they were told."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Awaitable
from contextlib import suppress
from random import Random
from typing import Any

from websockets.exceptions import WebSocketException

from tests.faults.api import RUN, VERSION, Api, Kind, Refused, Unclear, rows
from tests.faults.evidence import ENDED
from tests.faults.floor import EXTENSION_S, too_few_jobs
from tests.faults.history import History, Operation, Outcome
from tests.faults.plan import CLIENTS, Plan, planned_run

KINDS = {kind.type: kind for kind in (VERSION, RUN)}
ROWS = 30
MAX_VERSIONS, MAX_RUNS, MAX_WATCHERS = 2, 8, 5  # of one client: a run of the checker is to cost little
THINKS_S = 1.2  # on average, between two calls
RECONNECT_S = 0.5
EXTENDED_BY_S = 5.0
SLOW_UPLOAD_S = 5.0


class Clients:
    """All clients of one run of the checker, in one event loop."""

    def __init__(self, url: str, plan: Plan, history: History) -> None:
        self._history, self._plan = history, plan
        self._clients = [Client(number, Api(url), plan.random("client", number), history) for number in range(CLIENTS)]

    async def sign_up(self) -> None:
        """Before any fault: who has no account cannot take part."""
        for client in self._clients:
            await client.api.sign_up(client.email)

    async def act(self) -> None:
        """Ask for things until the time is over; for a while longer where faults let too little through."""
        until = time.monotonic() + self._plan.seconds
        await asyncio.gather(*(client.act(until) for client in self._clients))
        until += EXTENSION_S
        while (now := time.monotonic()) < until and too_few_jobs(self._history.operations, self._plan):
            await asyncio.gather(*(client.act(min(now + EXTENDED_BY_S, until)) for client in self._clients))

    async def finish(self, within_s: float) -> None:
        """Let the watchers hear the end of what they watch; those that do not are left as they are."""
        watching = [task for client in self._clients for task in client.watching]
        if watching:
            await asyncio.wait(watching, timeout=within_s)

    async def close(self) -> None:
        for client in self._clients:
            for task in client.watching:
                task.cancel()
            await asyncio.gather(*client.watching, return_exceptions=True)
            await client.api.__aexit__(None, None, None)


class Client:
    """One person with an organization of their own."""

    def __init__(self, number: int, api: Api, random: Random, history: History) -> None:
        self.email = f"client-{number}@faults.test"
        self.api, self._random, self._history = api, random, history
        self._versions: list[str] = []
        self._runs: list[str] = []
        self._ready: set[str] = set()  # versions that have succeeded
        self._acknowledged = {"create_dataset": 0, "start_run": 0}
        self.watching: list[asyncio.Task[None]] = []

    async def act(self, until: float) -> None:
        while (now := time.monotonic()) < until:
            await self._something()
            await asyncio.sleep(min(self._random.expovariate(1 / THINKS_S), max(0.0, until - now)))

    async def _something(self) -> None:
        verb = self._random.choices((self._make_dataset, self._start_run, self._cancel, self._look), (2, 6, 2, 3))[0]
        random = Random(self._random.random())
        if not self._versions:
            await self._make_dataset(random)
        elif not self._ready and random.random() < 0.8:
            await self._look_at(VERSION, random.choice(self._versions))
        elif not self._ready:
            await self._make_dataset(random)
        else:
            await verb(random)

    async def _make_dataset(self, random: Random) -> None:
        if self._acknowledged["create_dataset"] >= MAX_VERSIONS:
            return
        seed = random.randrange(2**31)
        content = rows(ROWS, seed)
        upload = await self._call(
            "upload",
            self.api.upload("rows.jsonl", content, random.choice((0.0, 0.0, SLOW_UPLOAD_S))),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        if not upload.is_done:
            return
        name = f"Rows {seed}"
        created = await self._call(
            "create_dataset", self.api.create_dataset(name, _global("Upload", upload.value)), name=name
        )
        if created.is_done:
            self._acknowledged["create_dataset"] += 1
            self._versions.append(created.value)
            self._watch(VERSION, created.value, random)

    async def _start_run(self, random: Random) -> None:
        if self._acknowledged["start_run"] >= MAX_RUNS:
            return
        run = planned_run(random)
        version = _global(VERSION.type, random.choice(sorted(self._ready)))
        call = self.api.start_run(version, run.script, seed=run.seed, steps=run.steps, every=run.every)
        started = await self._call("start_run", call, seed=run.seed, script=run.script.name, steps=run.steps)
        if started.is_done:
            self._acknowledged["start_run"] += 1
            self._runs.append(started.value)
            self._watch(RUN, started.value, random)

    async def _cancel(self, random: Random) -> None:
        """Mostly a new one, sometimes a version."""
        kind, jobs = (RUN, self._runs[-4:]) if random.random() < 0.85 else (VERSION, self._versions[-1:])
        if jobs:
            job = random.choice(jobs)
            await self._call("cancel", self.api.cancel(kind, _global(kind.type, job)), job=job)

    async def _look(self, random: Random) -> None:
        kind, jobs = (RUN, self._runs) if random.random() < 0.7 and self._runs else (VERSION, self._versions)
        await self._look_at(kind, random.choice(jobs))

    async def _look_at(self, kind: Kind, job: str) -> None:
        async def status() -> str:
            return str((await self.api.look(kind, _global(kind.type, job)))["status"])

        looked = await self._call("look", status(), job=job)
        if looked.value == "SUCCEEDED" and kind is VERSION:
            self._ready.add(job)

    async def _call(self, verb: str, doing: Awaitable[str], **arguments: Any) -> Operation:
        operation = self._history.call(self.email, verb, **arguments)
        try:
            value = await doing
            self._history.answer(operation, Outcome.DONE, _local(value))
        except Refused as refusal:
            self._history.answer(operation, Outcome.REFUSED, str(refusal))
            if refusal.code == "UNAUTHENTICATED":  # the clock was moved, and the token has expired
                with suppress(Refused, Unclear):
                    await self.api.log_in()
        except Unclear as unclear:
            operation.status, operation.retry_after_s = unclear.status, unclear.retry_after_s
            self._history.answer(operation, Outcome.UNCLEAR, str(unclear))
        return operation

    # ------------------------------------------------------------------------------------------ watching

    def _watch(self, kind: Kind, job: str, random: Random) -> None:
        if len(self.watching) < MAX_WATCHERS:
            self.watching.append(asyncio.create_task(self._hear(kind, job, random)))

    async def _hear(self, kind: Kind, job: str, random: Random) -> None:
        """Hear a job out over as many connections as it takes; now and then one is given up without a reason."""
        watcher = self._history.watch(job)
        while watcher.last_status not in ENDED:
            watcher.connections += 1
            patience = random.choice((1, 3, 1000))  # messages
            after = watcher.heard[-1] if watcher.heard else 0
            messages = self.api.subscribe(kind, _global(kind.type, job), after)
            try:
                async for batch in messages:
                    for event in batch:
                        self._history.hear(watcher, event["sequence"], event.get("status"))
                    patience -= 1
                    if patience == 0:
                        break
            except (WebSocketException, OSError, EOFError, TimeoutError, Unclear):
                pass
            except Refused as refusal:
                self._history.note(f"watcher {watcher.number} was refused: {refusal}")
                if refusal.code != "UNAUTHENTICATED":
                    return
                with suppress(Refused, Unclear):
                    await self.api.log_in()
            finally:
                await messages.aclose()
            await asyncio.sleep(RECONNECT_S)


def _local(value: str) -> str:
    """The key in the database of what a global id names; anything else as it is."""
    try:
        kind, _, key = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:
        return value
    return key if kind in ("Upload", *KINDS) else value


def _global(kind: str, key: str) -> str:
    return base64.b64encode(f"{kind}:{key}".encode()).decode()
