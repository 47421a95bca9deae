"""How the web process and the workers reach the inference server. Imports neither torch nor transformers."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from functools import cache
from typing import Any

import httpx

CONNECT_TIMEOUT_S = 5.0
STREAM_SILENCE_S = 120.0
STATUS_TIMEOUT_S = 3.0
SCORE_BODY_BYTES = 500_000
SCORE_ROWS = 256


class InferenceError(Exception):
    """What the server refused or failed at, in its words; or INFERENCE_UNAVAILABLE, INFERENCE_TIMEOUT.

    `field` names the input at fault, in snake_case; `retry_after` is the seconds after which trying again may help.
    """

    def __init__(self, code: str, message: str, retry_after: int | None = None, field: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.field = field


def predict(
    url: str,
    ticket: str,
    request: Mapping[str, Any],
    timeout_s: float,
    hear: Callable[[dict[str, Any]], None] = lambda chunk: None,
) -> dict[str, Any]:
    """Generate and return the prediction: {text, prompt_tokens, completion_tokens, finish_reason, adapter_digest,
    base_model, seconds}, and logprobs where they were asked for. `request` holds prompt or messages, max_new_tokens, temperature,
    top_p, top_k, repetition_penalty, seed, stop, logprobs, wait_s; null is the default. `hear` is called with each chunk, as `stream` yields them.

    Raises InferenceError; leaving early, for whatever reason, frees the request's place on the server.
    """
    deadline = time.monotonic() + timeout_s
    timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
    with (
        _translated(),
        _client().stream("POST", f"{url}/generate", content=_body(ticket, request), timeout=timeout) as answer,
    ):
        if answer.status_code != 200:
            raise _refused(answer.status_code, answer.read())
        for chunk in _chunks(answer.iter_lines()):
            hear(chunk)
            if "prediction" in chunk:
                prediction: dict[str, Any] = chunk["prediction"]
                return prediction
            if time.monotonic() > deadline:
                raise _timeout()
    raise _cut_short()


def predict_all(
    url: str,
    asked: Sequence[tuple[str, Mapping[str, Any]]],
    timeout_s: float,
    hear: Callable[[int, dict[str, Any]], None] = lambda place, chunk: None,
) -> list[dict[str, Any] | InferenceError]:
    """`predict` for each (ticket, request), all at once: in their order, the prediction or what became of it instead.

    `hear` is called with the place of the request, and the chunk. Together they may take `timeout_s`.
    """

    async def one(client: httpx.AsyncClient, place: int) -> dict[str, Any] | InferenceError:
        chunk: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s), aclosing(_streamed(client, url, *asked[place])) as chunks:
                async for chunk in chunks:
                    hear(place, chunk)
        except TimeoutError:
            return _timeout()
        except InferenceError as error:
            return error
        prediction: dict[str, Any] = chunk["prediction"]
        return prediction

    async def all_of_them() -> list[dict[str, Any] | InferenceError]:
        limits = httpx.Limits(max_connections=None)
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        async with httpx.AsyncClient(verify=_tls(), trust_env=False, timeout=timeout, limits=limits) as client:
            return await asyncio.gather(*(one(client, place) for place in range(len(asked))))

    return asyncio.run(all_of_them())


async def stream(
    url: str, ticket: str, request: Mapping[str, Any], *, silence_s: float = STREAM_SILENCE_S
) -> AsyncGenerator[dict[str, Any], None]:
    """Generate, yielding {sequence, text, tokens} as text appears, the last one with "prediction".

    `tokens` counts those that the model has read and written by then.

    Raises InferenceError. Closing the iterator (aclose, or the end of an `aclosing` block) closes the connection, which
    frees the request's place on the server.
    """
    timeout = httpx.Timeout(silence_s, connect=CONNECT_TIMEOUT_S)
    async with (
        httpx.AsyncClient(verify=_tls(), trust_env=False, timeout=timeout) as client,
        aclosing(_streamed(client, url, ticket, request)) as chunks,
    ):
        async for chunk in chunks:
            yield chunk


async def _streamed(
    client: httpx.AsyncClient, url: str, ticket: str, request: Mapping[str, Any]
) -> AsyncGenerator[dict[str, Any], None]:
    """The chunks of one generation up to the one with "prediction". Raises InferenceError."""
    with _translated():
        async with client.stream("POST", f"{url}/generate", content=_body(ticket, request)) as answer:
            if answer.status_code != 200:
                raise _refused(answer.status_code, await answer.aread())
            event = ""
            async for line in answer.aiter_lines():
                event, chunk = _read_line(line, event)
                if chunk is not None:
                    yield chunk
                    if "prediction" in chunk:
                        return
    raise _cut_short()


def status(url: str, ticket: str) -> dict[str, Any]:
    """What the server holds and does, as inference/server/status.py has it. Raises InferenceError."""
    with _translated():
        answer = _client().post(f"{url}/status", content=_body(ticket, {}), timeout=STATUS_TIMEOUT_S)
    if answer.status_code != 200:
        raise _refused(answer.status_code, answer.content)
    found: dict[str, Any] = answer.json()
    return found


def score(
    url: str, ticket: str, rows: Iterable[Mapping[str, Any]], max_tokens: int, timeout_s: float
) -> dict[str, Any]:
    """Return {rows: [{loss_sum, tokens}], loss, tokens, adapter_digest, base_model} of any number of rows.

    They are sent in parts, each of which may take `timeout_s`; all must be sent while the ticket is valid.
    """
    scored: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for part in _parts(rows):
        with _translated():
            body = _body(ticket, {"rows": part, "max_tokens": max_tokens})
            timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
            answer = _client().post(f"{url}/score", content=body, timeout=timeout)
        if answer.status_code != 200:
            raise _refused(answer.status_code, answer.content)
        last = answer.json()
        scored += last["rows"]
    tokens = sum(row["tokens"] for row in scored)
    loss = sum(row["loss_sum"] for row in scored) / tokens if tokens else None
    return {
        "rows": scored,
        "loss": loss,
        "tokens": tokens,
        "adapter_digest": last.get("adapter_digest"),
        "base_model": last.get("base_model"),
    }


@contextmanager
def _translated() -> Iterator[None]:
    """Turns httpx's exceptions into ours."""
    try:
        yield
    except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
        raise _unavailable() from error
    except httpx.TimeoutException as error:
        raise _timeout() from error
    except httpx.TransportError as error:
        raise _unavailable() from error


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reading the certificates takes tens of milliseconds: once


@cache
def _client() -> httpx.Client:
    """One for the process, its connections reused; proxies of the environment are not for a server on this machine."""
    limits = httpx.Limits(max_connections=128, max_keepalive_connections=32)
    return httpx.Client(verify=_tls(), trust_env=False, limits=limits)


def _body(ticket: str, request: Mapping[str, Any]) -> bytes:
    # ASCII: half of a surrogate pair gets through, and the server says what is wrong with it
    return json.dumps({"ticket": ticket, **request}).encode()


def _parts(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """Group rows so that each request stays below the server's limits."""
    part: list[Mapping[str, Any]] = []
    part_bytes = 0
    for row in rows:
        row_bytes = len(json.dumps(row))
        if part and (len(part) == SCORE_ROWS or part_bytes + row_bytes > SCORE_BODY_BYTES):
            yield part
            part, part_bytes = [], 0
        part.append(row)
        part_bytes += row_bytes
    if part:
        yield part


def _chunks(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    event = ""
    for line in lines:
        event, chunk = _read_line(line, event)
        if chunk is not None:
            yield chunk


def _read_line(line: str, event: str) -> tuple[str, dict[str, Any] | None]:
    """Take a line of server-sent events; return the name of the event in hand, and the chunk that the line holds."""
    name, _, value = line.partition(":")
    if name == "event":
        return value.strip(), None
    if name != "data":
        return event if line else "", None
    chunk: dict[str, Any] = json.loads(value)
    if event == "error":
        raise InferenceError(chunk["code"], chunk["message"], chunk.get("retry_after_s"), chunk.get("field"))
    return event, chunk


def _refused(status: int, body: bytes) -> InferenceError:
    try:
        error = json.loads(body)
        return InferenceError(error["code"], error["message"], error.get("retry_after_s"), error.get("field"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return InferenceError("INFERENCE_UNAVAILABLE", f"The inference server answered {status}.", 5)


def _unavailable() -> InferenceError:
    return InferenceError("INFERENCE_UNAVAILABLE", "The inference server is away; try again in a moment.", 5)


def _timeout() -> InferenceError:
    return InferenceError("INFERENCE_TIMEOUT", "The inference server took too long; ask for fewer tokens.", 5)


def _cut_short() -> InferenceError:
    return InferenceError("INFERENCE_UNAVAILABLE", "The inference server ended the answer early; try again.", 5)
