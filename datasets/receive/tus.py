"""tus 1.0 (https://tus.io/protocols/resumable-upload): its core, with the extensions termination and expiration.

A ticket's url is what tus calls an upload url; it is made by `startUpload`, and so there is no POST.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import format_datetime
from typing import IO

from django.conf import settings

from datasets.models import Upload, UploadStatus
from datasets.receive import partial
from datasets.receive.answers import Headers, Message, Receive, Refusal
from datasets.receive.arrival import as_it_is_now, complete, give_up, report, require_waiting
from datasets.receive.places import a_place_of
from datasets.receive.spool import Spool, at_leisure, off_the_loop, within

VERSION = b"1.0.0"
SILENCE_S = 15.0  # what has arrived stays, so that there is little to lose by giving a silent client up
MOST_DIGITS = 19  # int() refuses some thousands
RESUMABLE = ((b"tus-resumable", VERSION),)
NO_SUCH_NUMBER = "The header Upload-Offset should be how many bytes have arrived, as HEAD says."


def options() -> Headers:
    """What this server can do."""
    return (
        *RESUMABLE,
        (b"tus-version", VERSION),
        (b"tus-extension", b"termination,expiration"),
        (b"tus-max-size", str(settings.MAX_UPLOAD_BYTES).encode()),
    )


async def head(upload: Upload, scope: Message) -> Headers:
    """How far it has come. A file whose last piece's request died before it could say so is completed first."""
    headers = dict(scope["headers"])
    if b"tus-resumable" in headers:  # a person who looks with curl need not say so
        require_version(headers)
    offset = await _how_far(upload)
    length = (b"upload-length", str(upload.size_bytes).encode())
    return (*_offset(offset), length, (b"cache-control", b"no-store"), *_expiry(upload))


async def patch(upload: Upload, scope: Message, receive: Receive) -> Headers:
    """Append the body. Raises Refusal and Disconnected; what arrived before that stays, for the next request to go on."""
    headers = dict(scope["headers"])
    require_version(headers)
    if headers.get(b"content-type") != b"application/offset+octet-stream":
        raise Refusal(415, "WRONG_CONTENT_TYPE", "Send pieces as application/offset+octet-stream.", RESUMABLE)
    offset = headers.get(b"upload-offset", b"")
    if not offset.isdigit() or len(offset) > MOST_DIGITS:
        raise Refusal(400, "WRONG_OFFSET", NO_SUCH_NUMBER, RESUMABLE)
    require_waiting(upload)
    async with _held(upload) as file:
        require_waiting(await off_the_loop(lambda: as_it_is_now(upload)))  # whoever held it before may have ended it
        return await _append(upload, file, int(offset), receive)


async def delete(upload: Upload, scope: Message) -> Headers:
    """Forget it: nobody will send the rest."""
    require_version(dict(scope["headers"]))
    require_waiting(upload)

    def remove() -> None:
        with partial.held(upload):
            give_up(upload)
            partial.path_of(upload).unlink(missing_ok=True)

    await off_the_loop(remove)
    return RESUMABLE


def require_version(headers: dict[bytes, bytes]) -> None:
    if headers.get(b"tus-resumable") != VERSION:
        said = (*RESUMABLE, (b"tus-version", VERSION))
        raise Refusal(412, "WRONG_VERSION", "This is tus 1.0.0: say so in the header Tus-Resumable.", said)


async def _how_far(upload: Upload) -> int:
    if upload.status is UploadStatus.COMPLETE:
        return upload.size_bytes
    there = await off_the_loop(lambda: partial.size_of(upload))
    if there < upload.size_bytes:
        return there
    async with _held(upload) as file:
        now = await off_the_loop(lambda: as_it_is_now(upload))
        there = file.seek(0, os.SEEK_END)
        if now.status is not UploadStatus.COMPLETE and there == upload.size_bytes:
            await _finish(upload)
        return upload.size_bytes if now.status is UploadStatus.COMPLETE else there


@asynccontextmanager
async def _held(upload: Upload) -> AsyncIterator[IO[bytes]]:
    """The file of what has arrived, for this request alone; opened, locked, and closed off the loop."""
    with a_place_of(upload.organization_id):
        async with within(lambda: partial.held(upload)) as file:
            yield file


async def _append(upload: Upload, file: IO[bytes], offset: int, receive: Receive) -> Headers:
    there = file.seek(0, os.SEEK_END)
    if offset != there:
        message = f"{there:,} bytes have arrived, and these begin at {offset:,}; ask with HEAD where to go on."
        raise Refusal(409, "WRONG_OFFSET", message, _offset(there))
    spool = Spool(upload, file, there)
    try:
        await spool.take(receive, SILENCE_S)
    finally:
        await asyncio.shield(off_the_loop(lambda: report(upload, spool.size)))
    if spool.size == upload.size_bytes:
        await _finish(upload, spool.digest.hexdigest() if there == 0 else None)
    return (*_offset(spool.size), *_expiry(upload))


async def _finish(upload: Upload, sha256: str | None = None) -> None:
    """Store what has arrived. Where it is refused for good nothing of it stays; else the next request may try again."""

    def store() -> None:
        path = partial.path_of(upload)
        beside = partial.another_name_of(path)
        try:
            complete(upload, beside, sha256 or partial.sha256_of(path))
        except Refusal:
            path.unlink(missing_ok=True)
            report(upload, 0)
            raise
        finally:
            beside.unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    await at_leisure(store)


def _offset(offset: int) -> Headers:
    return (*RESUMABLE, (b"upload-offset", str(offset).encode()))


def _expiry(upload: Upload) -> Headers:
    return ((b"upload-expires", format_datetime(upload.expires_at, usegmt=True).encode()),)
