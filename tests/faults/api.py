"""A client of the API that says what an answer means: done, refused, or nobody knows.

async with Api(platform.url) as api:
    await api.sign_up("ada@example.com")
    upload = await api.upload("rows.jsonl", rows(40))
    version = await api.create_dataset("Snippets", upload)
    await api.wait_ended(VERSION, version)
    run = await api.start_run(version, Script(Behaviour.PLAIN), seed=1, steps=20)
    async for event in api.watch(RUN, run): ...
    await api.cancel(RUN, run)
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.typing import Subprotocol

from platform_site.demo import operations
from platform_site.demo.client import ENDED, ApiError, only_field
from tests.faults.scripts import Script

PASSWORD = "a long enough password"
ANSWER_S = 20.0
SILENCE_S = 10.0  # of a socket, after which a new one is made
RECONNECT_S = 0.5
PIECES = 10  # of an upload
NO_ROOM = 507  # the disk is full, and nothing was kept
NOT_SIGNED_IN = 4403  # how a socket is closed to a token that is not valid

_CANCELLED = "__typename ... on {type} {{ id status }} ... on OperationInfo {{ messages {{ kind code message }} }}"


@dataclass(frozen=True)
class Kind:
    """A kind of job, as the API speaks of it."""

    type: str
    query: str
    cancel: str
    events: str
    start: str


VERSION = Kind(
    "DatasetVersion",
    "query ($id: ID!) { datasetVersion(id: $id) { status errorCode errorMessage rowsKept } }",
    f"mutation ($id: ID!) {{ cancelDatasetVersion(id: $id) {{ {_CANCELLED.format(type='DatasetVersion')} }} }}",
    operations.DATASET_EVENTS,
    operations.CREATE_DATASET,
)
RUN = Kind(
    "TrainingRun",
    "query ($id: ID!) { trainingRun(id: $id) { status attempt errorCode errorMessage step adapter { digest } } }",
    f"mutation ($id: ID!) {{ cancelTrainingRun(id: $id) {{ {_CANCELLED.format(type='TrainingRun')} }} }}",
    operations.RUN_EVENTS,
    operations.START_RUN,
)


class Refused(Exception):
    """The platform said no, so nothing has happened."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Unclear(Exception):
    """No answer, or one that leaves open whether it was done: `status` is the HTTP status, None without an answer."""

    def __init__(self, reason: str, status: int | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.status, self.retry_after_s = status, retry_after_s


class Api:
    """One person's client."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=httpx.Timeout(ANSWER_S, connect=5.0), trust_env=False)
        self._socket_url = url.replace("http", "ws", 1) + "/graphql"
        self._email = self._token = ""

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    # ------------------------------------------------------------------------------------------ one call

    async def sign_up(self, email: str) -> None:
        self._email = email
        session = await self.ask(operations.SIGN_UP, input={"email": email, "password": PASSWORD})
        self._token = session["accessToken"]

    async def log_in(self) -> None:
        self._token = ""  # a request with one that is not valid any more is refused, whatever it asks for
        session = await self.ask(operations.LOG_IN, input={"email": self._email, "password": PASSWORD})
        self._token = session["accessToken"]

    async def ask(self, document: str, **variables: Any) -> Any:
        """The result of a document's only field. Raises Refused and Unclear."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        answer = await self._send("POST", "/graphql", headers, json={"query": document, "variables": variables})
        try:
            return only_field(answer)
        except ApiError as error:
            if error.code in ("INTERNAL", "UNAVAILABLE"):
                raise Unclear(str(error), 200) from None
            raise Refused(error.code, str(error)) from None

    async def _send(self, method: str, url: str, headers: dict[str, str], **content: Any) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, url, headers=headers, **content)
            body = answer.json()
        except httpx.HTTPError as error:
            raise Unclear(f"{type(error).__name__}: {error}") from None
        except ValueError:
            raise Unclear(f"{answer.status_code} without JSON: {answer.text[:100]}", answer.status_code) from None
        if answer.status_code >= 500 and answer.status_code != NO_ROOM:
            retry_after_s = answer.headers.get("Retry-After")
            raise Unclear(f"{answer.status_code}: {body}", answer.status_code, retry_after_s and float(retry_after_s))
        if answer.status_code >= 400 and not body.get("data"):  # a mutation's refusal may be a 429
            code = body.get("code") or body["errors"][0]["extensions"]["code"]
            raise Refused(code, str(body))
        return body

    # ------------------------------------------------------------------------------------------ verbs

    async def upload(self, name: str, content: bytes, lasting_s: float = 0.0) -> str:
        """Start an upload and send all of it, in as long a time; returns its id."""
        ticket = await self.ask(operations.START_UPLOAD, input={"fileName": name, "sizeBytes": len(content)})
        await self.send_file(ticket, content, lasting_s)
        return str(ticket["upload"]["id"])

    async def send_file(self, ticket: dict[str, Any], content: bytes, lasting_s: float = 0.0) -> None:
        headers = {**ticket["headers"], "Content-Length": str(len(content))}
        await self._send("PUT", ticket["url"], headers, content=_slowly(content, lasting_s))

    async def create_dataset(self, name: str, upload: str) -> str:
        """Queue a dataset's first version; returns the version's id."""
        return str((await self.ask(VERSION.start, input={"name": name, "uploadId": upload}))["id"])

    async def start_run(self, version: str, script: Script, *, seed: int, steps: int, every: int | None = None) -> str:
        config = {"maxSteps": steps, "checkpointEverySteps": every, "seed": seed}
        run = {"datasetVersionId": version, "name": script.name, "config": config}
        return str((await self.ask(RUN.start, input=run))["id"])

    async def cancel(self, kind: Kind, job: str) -> str:
        """Returns the status that the job had then."""
        return str((await self.ask(kind.cancel, id=job))["status"])

    async def look(self, kind: Kind, job: str) -> dict[str, Any]:
        return dict(await self.ask(kind.query, id=job))

    async def wait_ended(self, kind: Kind, job: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """The job, once it has ended; faults meanwhile are waited out."""
        return await self.wait_until(kind, job, lambda seen: seen["status"] in ENDED, timeout_s)

    async def wait_until(
        self, kind: Kind, job: str, condition: Callable[[dict[str, Any]], bool], timeout_s: float = 60.0
    ) -> dict[str, Any]:
        deadline, seen = time.monotonic() + timeout_s, {}
        while True:
            try:
                seen = await self.look(kind, job)
                if condition(seen):
                    return seen
            except Unclear:
                pass
            assert time.monotonic() < deadline, f"{kind.type} {job} after {timeout_s:.0f} s: {seen}"
            await asyncio.sleep(0.2)

    # ------------------------------------------------------------------------------------------ subscriptions

    async def watch(self, kind: Kind, job: str, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """A job's events to its end. Where a connection breaks off, a new one goes on after the last event heard."""
        while True:
            try:
                async for batch in self.subscribe(kind, job, after):
                    for event in batch:
                        after = event["sequence"]
                        yield event
                        if event["__typename"] == "StatusChanged" and event["status"] in ENDED:
                            return
            except (WebSocketException, OSError, EOFError, TimeoutError, Unclear):
                pass
            await asyncio.sleep(RECONNECT_S)

    async def subscribe(self, kind: Kind, job: str, after: int) -> AsyncIterator[list[dict[str, Any]]]:
        """The messages of one subscription over a connection of its own; raises what websockets raises, and Refused."""
        protocol = Subprotocol("graphql-transport-ws")
        payload = {"query": kind.events, "variables": {"id": job, "after": after}}
        async with connect(
            self._socket_url, subprotocols=[protocol], compression=None, proxy=None, open_timeout=5, close_timeout=1
        ) as socket:
            await socket.send(_message("connection_init", payload={"authorization": f"Bearer {self._token}"}))
            while True:
                try:
                    async with asyncio.timeout(SILENCE_S):
                        message = json.loads(await socket.recv())
                except ConnectionClosed as closed:
                    if socket.close_code == NOT_SIGNED_IN:
                        raise Refused("UNAUTHENTICATED", str(closed)) from None
                    raise
                match message["type"]:
                    case "connection_ack":
                        await socket.send(_message("subscribe", id="1", payload=payload))
                    case "ping":
                        await socket.send(_message("pong"))
                    case "next":
                        yield _value(message["payload"])
                    case "error":
                        _value({"errors": message["payload"]})
                    case "complete":
                        return


async def _slowly(content: bytes, lasting_s: float) -> AsyncIterator[bytes]:
    size = max(1, len(content) // PIECES)
    for begin in range(0, len(content), size):
        yield content[begin : begin + size]
        await asyncio.sleep(lasting_s / PIECES)


def _message(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def _value(result: dict[str, Any]) -> Any:
    try:
        return only_field(result)
    except ApiError as error:
        if error.code in ("INTERNAL", "UNAVAILABLE"):
            raise Unclear(str(error)) from None
        raise Refused(error.code, str(error)) from None


def rows(count: int, seed: int = 0) -> bytes:
    """JSON lines of prompts and completions, different for each seed."""
    lines = (
        {"prompt": f"def add_{seed}_{row}(value):\n", "completion": f"    return value + {row}\n"}
        for row in range(count)
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()
