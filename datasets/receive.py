"""Receives uploads: a plain ASGI callable, because Django's handler spools a whole body before a view sees a byte.

Memory is constant (one megabyte a request), and the client is slowed to what the disk takes. A transfer that breaks off
leaves nothing, and may be repeated; the upload exists once its bytes are in storage and their sha256 is known.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from uuid import UUID, uuid4

from django.conf import settings
from django.utils import timezone

from accounts.models import Membership
from accounts.usage import settle
from accounts.usage_kinds import UsageKind
from common import blobs
from common.child import NO_SPACE
from common.outages import AWAY
from common.tenancy import organizations_scope
from common.threads import in_thread
from datasets.models import Upload, UploadStatus
from datasets.tickets import ids_in

logger = logging.getLogger(__name__)

T = TypeVar("T")
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BUFFER_BYTES = 1 << 20
REPORT_EVERY_S = 0.5
MAX_AT_ONCE = 64  # of this process, each with its buffer; one that comes after waits at its client
MAX_OF_ONE_ORGANIZATION = 16  # of these: slow ones must not keep everybody else away
SILENCE_S = 60.0  # whoever sends nothing for so long has gone without a word, or never meant to send

_threads = ThreadPoolExecutor(4, thread_name_prefix="uploads")  # what they write must hold nobody else up
_at_once = 0
_of_each: Counter[UUID] = Counter()


@dataclass
class Refusal(Exception):
    """An answer other than success, with what to do about it."""

    status: int
    code: str
    message: str


class Disconnected(Exception):
    """The client went away."""


async def receive_upload(scope: Message, receive: Receive, send: Send) -> None:
    """PUT /uploads/<token>: 201 once all bytes are stored. Errors are JSON {code, message}."""
    global _at_once
    _at_once += 1
    try:
        if scope["method"] != "PUT":
            raise Refusal(405, "METHOD_NOT_ALLOWED", "Send the file's bytes with PUT.")
        if _at_once > MAX_AT_ONCE:
            raise Refusal(
                503, "BUSY", "As many files as can be received at a time are being sent; try again in a moment."
            )
        upload = await _in_thread(lambda: _open(scope["path"].rpartition("/")[2]))
        _check_length(upload, dict(scope["headers"]))
        with _place_of(upload.organization_id):
            sha256 = await _receive_body(upload, receive)
        await _answer(send, 201, {"receivedBytes": upload.size_bytes, "sha256": sha256})
    except Refusal as refusal:
        await _answer(send, refusal.status, {"code": refusal.code, "message": refusal.message})
    except AWAY:
        await _answer(
            send, 503, {"code": "UNAVAILABLE", "message": "The database cannot be reached; send the file again."}
        )
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        logger.exception("The disk is full.")
        await _answer(
            send,
            507,
            {
                "code": "DISK_FULL",
                "message": "The platform has no room for this file now; its operators have to make some.",
            },
        )
    except Disconnected:
        pass
    finally:
        _at_once -= 1


@contextmanager
def _place_of(organization_id: UUID) -> Iterator[None]:
    if _of_each[organization_id] >= MAX_OF_ONE_ORGANIZATION:
        raise Refusal(
            503,
            "BUSY",
            f"Your organization is sending {MAX_OF_ONE_ORGANIZATION} files, the most at a time; try again in a moment.",
        )
    _of_each[organization_id] += 1
    try:
        yield
    finally:
        _of_each[organization_id] -= 1
        if not _of_each[organization_id]:
            del _of_each[organization_id]


async def _in_thread(function: Callable[[], T]) -> T:
    return await in_thread(function, _threads)


def _open(token: str) -> Upload:
    ids = ids_in(token)
    if ids is None:
        raise _not_found()
    upload = _wanted(*ids)
    if upload.status is UploadStatus.EXPIRED:
        raise _not_found()
    return upload


def _has_left(upload: Upload) -> bool:
    """Whether whoever announced it belongs to its organization no more; for what a key announced nobody has."""
    if upload.created_by_id is None:
        return False
    return not Membership.objects.filter(organization_id=upload.organization_id, user_id=upload.created_by_id).exists()


def _wanted(organization_id: UUID, upload_id: UUID) -> Upload:
    """The upload as it is now, whose bytes are still waited for. Raises Refusal."""
    with organizations_scope([organization_id]):
        upload: Upload | None = Upload.objects.select_related("organization").filter(pk=upload_id).first()
        if upload is None or _has_left(upload):
            raise _not_found()
    if upload.status is UploadStatus.COMPLETE:
        raise Refusal(409, "UPLOAD_COMPLETE", "All bytes of this upload have arrived before; start another one.")
    if upload.organization.closes_at is not None:
        raise Refusal(409, "ORGANIZATION_CLOSING", "This organization is about to be deleted; it takes no more files.")
    return upload


def _not_found() -> Refusal:
    return Refusal(404, "NOT_FOUND", "There is no such upload, or its ticket has expired; start another one.")


def _check_length(upload: Upload, headers: dict[bytes, bytes]) -> None:
    length = headers.get(b"content-length")
    if length is not None and int(length) != upload.size_bytes:
        raise _wrong_size(upload, int(length))


def _wrong_size(upload: Upload, size: int) -> Refusal:
    return Refusal(
        400,
        "WRONG_SIZE",
        f"The ticket is for {upload.size_bytes:,} bytes, and these are {size:,}; start another upload.",
    )


async def _receive_body(upload: Upload, receive: Receive) -> str:
    incoming = Path(settings.INCOMING_ROOT)
    incoming.mkdir(parents=True, exist_ok=True)
    path = incoming / f"{upload.pk}.{uuid4().hex}"
    try:
        size, sha256 = await _spool(upload, receive, path)
        if size != upload.size_bytes:
            raise _wrong_size(upload, size)
        if upload.expected_sha256 not in ("", sha256):
            raise Refusal(
                400,
                "SHA256_MISMATCH",
                "The bytes that arrived are not those that the upload was started for; send them again.",
            )
        await _in_thread(lambda: _complete(upload, path, sha256))
        return sha256
    except BaseException:
        await asyncio.shield(_in_thread(lambda: _report(upload, 0)))
        raise
    finally:
        path.unlink(missing_ok=True)


async def _spool(upload: Upload, receive: Receive, path: Path) -> tuple[int, str]:
    digest, size, buffer, reported = hashlib.sha256(), 0, bytearray(), 0.0
    with path.open("wb") as file:

        def flush(block: bytes) -> None:
            digest.update(block)
            file.write(block)

        more = True
        while more:
            message = await _next(receive)
            if message["type"] == "http.disconnect":
                raise Disconnected
            more = message.get("more_body", False)
            buffer += message.get("body", b"")
            if len(buffer) >= BUFFER_BYTES or not more:
                size += len(buffer)
                if size > upload.size_bytes:
                    raise _wrong_size(upload, size)
                block, buffer = bytes(buffer), bytearray()
                await _in_thread(lambda block=block: flush(block))  # type: ignore[misc]
            if not more:
                await _in_thread(lambda: _sync(file))
            if more and time.monotonic() - reported > REPORT_EVERY_S:
                await _in_thread(lambda size=size: _go_on(upload, size))  # type: ignore[misc]
                reported = time.monotonic()
    return size, digest.hexdigest()


async def _next(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(SILENCE_S):
            return await receive()
    except TimeoutError:
        message = f"Nothing has arrived for {SILENCE_S:.0f} seconds; send the file again."
        raise Refusal(408, "TOO_SLOW", message) from None


def _sync(file: IO[bytes]) -> None:
    """On the disk before the file takes its name."""
    file.flush()
    os.fsync(file.fileno())


def _report(upload: Upload, received_bytes: int) -> None:
    with organizations_scope([upload.organization_id]):
        Upload.objects.filter(pk=upload.pk, completed_at=None).update(received_bytes=received_bytes)


def _go_on(upload: Upload, received_bytes: int) -> None:
    """Say how far it has come. Raises Refusal where nobody wants the rest any more."""
    _wanted(upload.organization_id, upload.pk)
    _report(upload, received_bytes)


def _complete(upload: Upload, path: Path, sha256: str) -> None:
    """Store the bytes, then say so. Each transfer has a key of its own: one that died in between is in nobody's way."""
    _wanted(upload.organization_id, upload.pk)
    key = blobs.key(upload.organization_id, "uploads", upload.pk, uuid4().hex)
    blobs.put(key, path, move=True)
    done = {"received_bytes": upload.size_bytes, "sha256": sha256, "completed_at": timezone.now(), "storage_key": key}
    with organizations_scope([upload.organization_id]):
        waiting = Upload.objects.filter(pk=upload.pk, completed_at=None, organization__closes_at=None)
        won = waiting.update(**done)
        if won:
            settle(upload.organization_id, UsageKind.STORAGE_BYTES, upload.size_bytes, key=upload.usage_key)
    if not won:
        blobs.delete(key)
        _wanted(upload.organization_id, upload.pk)  # says why it is not
        raise Refusal(409, "UPLOAD_COMPLETE", "Another transfer of this upload has finished first.")


async def _answer(send: Send, status: int, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status >= 400:
        headers.append((b"connection", b"close"))  # the rest of the body is not wanted
    if status == 503:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
