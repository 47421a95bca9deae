"""The demo's client: GraphQL over HTTP, subscriptions over graphql-transport-ws, and nothing that a user could not do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from platform_site.demo import operations

ANSWER_S = 150.0  # a prediction waits for the inference server
SOCKET_SILENCE_S = 30.0  # then the connection is made anew: a half-open one says nothing, either
BLOCK_BYTES = 1 << 18
REFRESH_BEFORE = timedelta(minutes=2)
ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}


class ApiError(Exception):
    """The platform refused or failed, in its words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class Failed(Exception):
    """What prevents the demo from going on, as a sentence or two."""


class Stalled(Exception):
    """Nothing was heard of a job for too long."""


class Client:
    """Of one user, from the moment of `use(session)`; the session is exchanged before it expires."""

    def __init__(self, url: str) -> None:
        # neither proxies nor credentials of the environment are for a server on this machine
        timeout = httpx.Timeout(ANSWER_S, connect=10.0)
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)
        self._socket_url = url.replace("http", "ws", 1) + "/graphql"
        self._session: dict[str, Any] | None = None

    def close(self) -> None:
        self._http.close()

    def use(self, session: dict[str, Any]) -> None:
        self._session = session

    def ask(self, document: str, **variables: Any) -> Any:
        """The result of a document's only field. Raises ApiError, and httpx.HTTPError where there is no answer."""
        return self._post(document, variables, {"Authorization": self._authorization()})

    def ask_as_nobody(self, document: str, **variables: Any) -> Any:
        return self._post(document, variables, {})

    def _post(self, document: str, variables: dict[str, Any], headers: dict[str, str]) -> Any:
        answer = self._http.post("/graphql", json={"query": document, "variables": variables}, headers=headers)
        return only_field(json_of(answer))

    def _authorization(self) -> str:
        session = self._session
        assert session is not None, "sign up first"
        if datetime.fromisoformat(session["expiresAt"]) - datetime.now(UTC) < REFRESH_BEFORE:
            session = self.ask_as_nobody(operations.REFRESH, input={"refreshToken": session["refreshToken"]})
            self.use(session)
        return f"Bearer {session['accessToken']}"

    def cancel_unfinished(self) -> None:
        """Cancel what the user's organization has queued or running: the next start would go on with it."""
        for edge in self.ask(operations.UNFINISHED_RUNS)["edges"]:
            self.ask(operations.CANCEL_RUN, id=edge["node"]["id"])
        for edge in self.ask(operations.NEWEST_VERSIONS)["edges"]:
            version = edge["node"]["latestVersion"]
            if version is not None and version["status"] not in ENDED:
                self.ask(operations.CANCEL_VERSION, id=version["id"])

    def send_file(self, url: str, headers: dict[str, str], path: Path, sent: Callable[[int], None]) -> dict[str, Any]:
        """PUT a file's bytes, telling `sent` how many have gone. Raises ApiError."""

        def blocks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
                    sent(file.tell())

        size = str(path.stat().st_size)
        answer = self._http.put(url, content=blocks(), headers={**headers, "Content-Length": size})
        body = json_of(answer)
        if answer.status_code >= 400:
            raise ApiError(body.get("code", str(answer.status_code)), body.get("message", "The upload was refused."))
        return body

    def follow(self, document: str, job_id: str, silence_s: float) -> Iterator[dict[str, Any]]:
        """A job's events up to its end, in order. Where the connection drops, a new one goes on after the last event.

        Raises ApiError, and Stalled where nothing happens for `silence_s`.
        """
        last, heard = 0, time.monotonic()
        while True:
            try:
                for batch in self.subscribe(document, id=job_id, after=last):
                    for event in batch:
                        last, heard = event["sequence"], time.monotonic()
                        yield event
                        if event["__typename"] == "StatusChanged" and event["status"] in ENDED:
                            return
            except (WebSocketException, OSError, httpx.TransportError):  # a silence is a TimeoutError, hence an OSError
                pass
            if time.monotonic() - heard > silence_s:
                raise Stalled(f"Nothing has been heard of the job for {silence_s:.0f} s.")
            time.sleep(0.5)

    def subscribe(self, document: str, **variables: Any) -> Iterator[Any]:
        """The messages of one subscription, over a connection of its own. Raises ApiError and what websockets raises."""
        init = {"type": "connection_init", "payload": {"authorization": self._authorization()}}
        subscribe = {"type": "subscribe", "id": "1", "payload": {"query": document, "variables": variables}}
        protocol = Subprotocol("graphql-transport-ws")
        with connect(self._socket_url, subprotocols=[protocol], compression=None, proxy=None, max_size=None) as socket:
            socket.send(json.dumps(init))
            while True:
                message = json.loads(socket.recv(SOCKET_SILENCE_S))
                match message["type"]:
                    case "connection_ack":
                        socket.send(json.dumps(subscribe))
                    case "ping":
                        socket.send(json.dumps({"type": "pong"}))
                    case "next":
                        yield only_field(message["payload"])
                    case "error":
                        raise first_error(message["payload"])
                    case "complete":
                        return


def json_of(answer: httpx.Response) -> dict[str, Any]:
    try:
        body: dict[str, Any] = answer.json()
    except ValueError:
        raise ApiError(str(answer.status_code), f"The platform answered {answer.request.url} with no JSON.") from None
    return body


def only_field(result: dict[str, Any]) -> Any:
    """The data of a result's only field. Raises ApiError for errors, OperationInfo, and QuotaExceeded."""
    if result.get("errors"):
        raise first_error(result["errors"])
    (value,) = result["data"].values()
    kind = value.get("__typename") if isinstance(value, dict) else None
    if kind == "OperationInfo":
        message = value["messages"][0]
        raise ApiError(message["code"] or message["kind"], message["message"])
    if kind == "QuotaExceeded":
        raise ApiError(value["code"], value["message"])
    return value


def first_error(errors: list[dict[str, Any]]) -> ApiError:
    return ApiError(errors[0].get("extensions", {}).get("code", "ERROR"), errors[0]["message"])
