"""An upload as its client makes one: the ticket, the bytes, and what is left of both."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings

from datasets.receive import receive_upload
from tests.cast import Person

START = """
mutation ($input: StartUploadInput!) { startUpload(input: $input) {
  __typename
  ... on UploadTicket { url protocols headers expiresAt upload { id fileName sizeBytes receivedBytes sha256 status } }
  ... on OperationInfo { messages { kind code field message } }
} }
"""
UPLOAD = "query ($id: ID!) { upload(id: $id) { status receivedBytes sha256 } }"
CONTENT = b'{"text": "one"}\n{"text": "two"}\n'
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WAITING = {"status": "WAITING", "receivedBytes": 0, "sha256": None}
COMPLETE = {"status": "COMPLETE", "receivedBytes": len(CONTENT), "sha256": SHA256}


def start(person: Person, size: int = len(CONTENT), **fields: Any) -> dict[str, Any]:
    """A ticket for `size` bytes."""
    answer = person.data(START, input={"fileName": "rows.jsonl", "sizeBytes": size, **fields})["startUpload"]
    assert answer["__typename"] == "UploadTicket", answer
    return answer


def state(person: Person, ticket: dict[str, Any]) -> dict[str, Any]:
    return person.data(UPLOAD, id=ticket["upload"]["id"])["upload"]


def stored() -> list[Path]:
    return sorted(path for path in Path(settings.STORAGE_ROOT).rglob("*") if path.is_file())


def left_over() -> list[Path]:
    return list((Path(settings.HOME) / "incoming").glob("*"))


def send(
    path: str,
    chunks: Iterator[bytes] | list[bytes],
    *,
    method: str = "PUT",
    length: int | None = None,
    cut: bool = False,
) -> tuple[int, dict[str, Any]] | None:
    """PUT `chunks` to the receiver, as a server would hand them over; None where the client went away and got nothing."""
    sent: list[dict[str, Any]] = []

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for chunk in chunks:
            yield {"type": "http.request", "body": chunk, "more_body": True}
        yield {"type": "http.disconnect"} if cut else {"type": "http.request", "body": b"", "more_body": False}

    async def run() -> None:
        incoming = messages()

        async def note(message: dict[str, Any]) -> None:
            sent.append(message)

        headers = [] if length is None else [(b"content-length", str(length).encode())]
        scope = {"type": "http", "method": method, "path": path, "headers": headers}
        await receive_upload(scope, incoming.__anext__, note)

    asyncio.run(run())
    if not sent:
        return None
    return sent[0]["status"], json.loads(sent[1]["body"])


def put(ticket: dict[str, Any], *chunks: bytes, **how: Any) -> tuple[int, dict[str, Any]] | None:
    return send(urlsplit(ticket["url"]).path, list(chunks), **how)
