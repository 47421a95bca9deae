"""Links to files in storage: whoever has one within its ten minutes has the file, and nobody else.

Who may have one is decided where it is made, in the scope of whoever asks; the signature keeps it to that file. Storage in a
cloud answers such links itself; for a file system `send_file` does, at /files/<token>.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import IO, Any, NamedTuple

from django.conf import settings
from django.core import signing
from django.utils.http import content_disposition_header

from common import blobs
from common.threads import in_thread

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LIFETIME = timedelta(minutes=10)
# A report is a page with scripts of its own, made of what somebody uploaded: it runs without an origin, so that it reaches
# no session and no storage of this site's, and can ask nobody for anything.
POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_SALT = "datasets.file"
_threads = ThreadPoolExecutor(4, thread_name_prefix="files")  # a slow disk holds nobody else up


class Linked(NamedTuple):
    """A file, and what whoever fetches it shall take it for."""

    key: str
    file_name: str
    content_type: str


def url_of(key: str, file_name: str, content_type: str) -> str:
    """A link to a blob for ten minutes, from whoever answers it."""
    by_storage = blobs.signed_url(key, lifetime=LIFETIME, file_name=file_name, content_type=content_type)
    return by_storage or f"{settings.PUBLIC_URL}/files/{sign(key, file_name, content_type)}"


def sign(key: str, file_name: str, content_type: str) -> str:
    return signing.dumps([key, file_name, content_type], salt=_SALT, compress=True)


def named_by(token: str) -> Linked | None:
    """What a token names that this installation signed within the last ten minutes; None for any other."""
    try:
        return Linked(*signing.loads(token, salt=_SALT, max_age=LIFETIME))
    except (signing.BadSignature, ValueError, TypeError):
        return None


async def send_file(scope: Message, receive: Receive, send: Send) -> None:
    """GET and HEAD of /files/<token>, a piece at a time, as fast as it is taken."""
    if scope["method"] not in ("GET", "HEAD"):
        await _refuse(send, 405, "METHOD_NOT_ALLOWED", "Fetch a file with GET.")
        return
    linked = named_by(scope["path"].rpartition("/")[2])
    file = await _opened(linked.key) if linked else None
    if linked is None or file is None:
        await _refuse(send, 404, "NOT_FOUND", "There is no such file, or its link has expired; ask for a new one.")
        return
    try:
        size = await in_thread(lambda: file.seek(0, 2), _threads)
        await in_thread(lambda: file.seek(0), _threads)
        await send({"type": "http.response.start", "status": 200, "headers": _headers(linked, size)})
        if scope["method"] == "GET":
            await _send_pieces(file, receive, send)
        await send({"type": "http.response.body", "body": b""})
    finally:
        await in_thread(file.close, _threads)


async def _send_pieces(file: IO[bytes], receive: Receive, send: Send) -> None:
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        while not gone.done() and (piece := await in_thread(lambda: file.read(blobs.CHUNK_BYTES), _threads)):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _opened(key: str) -> IO[bytes] | None:
    try:
        return await in_thread(lambda: blobs.open_read(key), _threads)
    except FileNotFoundError:
        return None


def _headers(linked: Linked, size: int) -> list[tuple[bytes, bytes]]:
    disposition = content_disposition_header(linked.content_type not in blobs.SHOWN, linked.file_name) or "inline"
    charset = "; charset=utf-8" if linked.content_type.startswith("text/") else ""
    return [
        (b"content-type", f"{linked.content_type}{charset}".encode()),
        (b"content-length", str(size).encode()),
        (b"content-disposition", disposition.encode()),
        (b"content-security-policy", POLICY.encode()),
        (b"cache-control", b"private, no-store"),
    ]


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    body = json.dumps({"code": code, "message": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
