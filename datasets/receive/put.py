"""A plain PUT of the whole file, as `curl -T` sends it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from datasets.models import Upload
from datasets.receive.answers import Message, Receive, wrong_size
from datasets.receive.arrival import complete, report, require_waiting
from datasets.receive.places import a_place_of
from datasets.receive.spool import Spool, at_leisure, incoming, off_the_loop, within

SILENCE_S = 60.0  # whoever sends nothing for so long has gone without a word, or never meant to send


async def put(upload: Upload, scope: Message, receive: Receive) -> str:
    """The sha256 of what is now in storage. Raises Refusal and Disconnected, and then nothing is left."""
    require_waiting(upload)
    length = dict(scope["headers"]).get(b"content-length")
    if length is not None and int(length) != upload.size_bytes:
        raise wrong_size(upload.size_bytes, int(length))
    with a_place_of(upload.organization_id):
        return await _receive(upload, receive)


async def _receive(upload: Upload, receive: Receive) -> str:
    path = await off_the_loop(lambda: incoming() / f"{upload.pk}.{uuid4().hex}")
    try:
        async with within(lambda: path.open("wb")) as file:
            spool = Spool(upload, file)
            await spool.take(receive, SILENCE_S)
        if spool.size != upload.size_bytes:
            raise wrong_size(upload.size_bytes, spool.size)
        sha256 = spool.digest.hexdigest()
        await off_the_loop(lambda: complete(upload, path, sha256))
        return sha256
    except BaseException:
        await asyncio.shield(off_the_loop(lambda: report(upload, 0)))
        raise
    finally:
        await asyncio.shield(at_leisure(lambda: path.unlink(missing_ok=True)))  # of gigabytes, it takes its time
