"""/downloads/<token>: a GET of what a link names. Errors are JSON {code, message}."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.utils.http import content_disposition_header

from common.origin import request_from
from common.outages import AWAY
from common.tenancy import organizations_scope
from common.threads import in_thread
from datasets.download.places import a_place_of
from datasets.exports import export, file_name, named_in, note
from datasets.models import DatasetVersion
from datasets.pipeline.stored.export import ExportFormat
from datasets.receive.answers import Disconnected, Message, Receive, Refusal, Send, answer

logger = logging.getLogger(__name__)

T = TypeVar("T")

STALLED_S = 60.0  # whoever takes nothing for so long has gone without a word

_threads = ThreadPoolExecutor(2, thread_name_prefix="downloads")  # pieces are computed: more would only take turns
_questions = ThreadPoolExecutor(
    4, thread_name_prefix="downloads-asked"
)  # for PostgreSQL, where one may wait for a lock


async def send_download(scope: Message, receive: Receive, send: Send) -> None:
    try:
        await _respond(scope, receive, send)
    except Refusal as refusal:
        content = {"code": refusal.code, "message": refusal.message}
        await answer(send, refusal.status, content, [*refusal.headers, (b"cache-control", b"no-store")])
    except AWAY:
        message = "The database cannot be reached; try again in a moment."
        await answer(send, 503, {"code": "UNAVAILABLE", "message": message})
    except Stalled:
        # without the end of its last chunk no client takes what it has for the whole file
        logger.warning("A download was broken off: its reader took nothing for %.0f s.", STALLED_S)
    except Disconnected:
        pass


async def _respond(scope: Message, receive: Receive, send: Send) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        raise Refusal(405, "METHOD_NOT_ALLOWED", "Fetch the file with GET.", [(b"allow", b"GET, HEAD")])
    token = scope["path"].removeprefix("/downloads/")
    version, split, export_format, asked_by = await in_thread(lambda: _named_by(token), _questions)
    head = {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"content-type", export_format.media_type.encode()),
            (b"content-disposition", _disposition(file_name(version, split, export_format))),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ],
    }
    if scope["method"] == "HEAD":
        await send(head)
        await send({"type": "http.response.body", "body": b""})
        return
    with a_place_of(version.organization_id):
        host = (scope.get("client") or [""])[0]
        await in_thread(lambda: _note(version, split, export_format, asked_by, host), _questions)
        pieces = _Pieces(export(version, split, export_format))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await _send_all(pieces, head, gone, send)
        finally:
            gone.cancel()
            await asyncio.shield(_off_the_loop(pieces.close))


async def _send_all(pieces: _Pieces, head: Message, gone: asyncio.Future[None], send: Send) -> None:
    """Raises Disconnected and Stalled."""
    try:
        piece = await _off_the_loop(pieces.next)  # what cannot be read at all is answered with a status
    except FileNotFoundError:
        raise _not_found() from None  # its dataset was deleted a moment ago
    await _taken(send(head))
    while piece is not None:
        if gone.done():
            raise Disconnected
        await _taken(send({"type": "http.response.body", "body": piece, "more_body": True}))
        piece = await _off_the_loop(pieces.next)
    await _taken(send({"type": "http.response.body", "body": b""}))


async def _taken(sending: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout(STALLED_S):
            await sending
    except TimeoutError:
        raise Stalled from None


class Stalled(Exception):
    """The reader has gone without a word."""


class _Pieces:
    """A file that is closed when nobody works on its next piece: a request that is cancelled does not wait for its thread."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces: Iterator[bytes] = pieces
        self._lock = threading.Lock()

    def next(self) -> bytes | None:
        with self._lock:
            return next(self._pieces, None)

    def close(self) -> None:
        with self._lock:
            self._pieces.close()  # type: ignore[attr-defined]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _named_by(token: str) -> tuple[DatasetVersion, str | None, ExportFormat, str]:
    """Raises Refusal."""
    named = named_in(token)
    if named is None:
        raise _not_found()
    organization_id, version_id, split, export_format, asked_by = named
    with organizations_scope([organization_id]):
        found: DatasetVersion | None = DatasetVersion.objects.select_related("dataset").filter(pk=version_id).first()
    if found is None or not found.storage_prefix:
        raise _not_found()
    return found, split, export_format, asked_by


def _note(version: DatasetVersion, split: str | None, export_format: ExportFormat, asked_by: str, host: str) -> None:
    with organizations_scope([version.organization_id]), request_from(host):
        note(version, split, export_format, taken_by=asked_by)


def _not_found() -> Refusal:
    return Refusal(404, "NOT_FOUND", "There is no such file, or the link has expired; ask for downloadUrl again.")


def _disposition(name: str) -> bytes:
    header = content_disposition_header(as_attachment=True, filename=name)
    assert header is not None
    return header.encode("latin-1")


async def _off_the_loop(function: Callable[[], T]) -> T:
    return await in_thread(function, _threads)
