"""A request's body on its way to a file, as fast as the disk takes it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import IO, TypeVar

from django.conf import settings

from common.threads import in_thread
from datasets.models import Upload
from datasets.receive.answers import Disconnected, Message, Receive, Refusal, wrong_size
from datasets.receive.arrival import go_on

T = TypeVar("T")

BUFFER_BYTES = 1 << 20
REPORT_EVERY_S = 0.5

_threads = ThreadPoolExecutor(4, thread_name_prefix="uploads")  # what they write must hold nobody else up
_finishers = ThreadPoolExecutor(2, thread_name_prefix="finished-uploads")  # a file of gigabytes is read once more


async def off_the_loop(function: Callable[[], T]) -> T:
    return await in_thread(function, _threads)


async def at_leisure(function: Callable[[], T]) -> T:
    """`off_the_loop`, for what may take as long as reading a whole file does."""
    return await in_thread(function, _finishers)


@asynccontextmanager
async def within(make: Callable[[], AbstractContextManager[T]]) -> AsyncIterator[T]:
    """`with make()`, entered and left off the loop: a disk that is slow to open and close files stops nobody else."""
    stack = ExitStack()
    entered = await off_the_loop(lambda: stack.enter_context(make()))
    try:
        yield entered
    finally:
        await asyncio.shield(off_the_loop(stack.close))


def incoming() -> Path:
    """The folder of what is on its way, by <upload's id>.<something>."""
    folder = Path(settings.INCOMING_ROOT)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Spool:
    """Appends to `file`, which holds the upload's first `size` bytes; `digest` is of all that this spool has written."""

    def __init__(self, upload: Upload, file: IO[bytes], size: int = 0) -> None:
        self.size = size
        self.digest = hashlib.sha256()
        self._upload = upload
        self._file = file

    async def take(self, receive: Receive, silence_s: float) -> None:
        """Write the whole body, and have it on the disk.

        Raises Disconnected, and Refusal: more bytes than were announced, nothing for `silence_s`, or nobody wants them
        any more. What came before that has been written.
        """
        buffer, reported, more = bytearray(), 0.0, True
        try:
            while more:
                message = await _next(receive, silence_s)
                if message["type"] == "http.disconnect":
                    raise Disconnected
                more = message.get("more_body", False)
                buffer += message.get("body", b"")
                if self.size + len(buffer) > self._upload.size_bytes:
                    sent = self.size + len(buffer)
                    buffer.clear()
                    raise wrong_size(self._upload.size_bytes, sent)
                if len(buffer) >= BUFFER_BYTES:
                    await self._write(buffer)
                if more and time.monotonic() - reported > REPORT_EVERY_S:
                    await off_the_loop(lambda: go_on(self._upload, self.size))
                    reported = time.monotonic()
        finally:
            await self._write(buffer)
            await off_the_loop(self._sync)

    async def _write(self, buffer: bytearray) -> None:
        block = bytes(buffer)
        buffer.clear()

        def write() -> None:
            self.digest.update(block)
            left = memoryview(block)
            while left:  # the last free bytes of a disk take a part, without an error
                taken = self._file.write(left)
                self.size += taken
                left = left[taken:]

        if block:
            await off_the_loop(write)

    def _sync(self) -> None:
        """On the disk before anybody is told that it is there."""
        self._file.flush()
        os.fsync(self._file.fileno())


async def _next(receive: Receive, silence_s: float) -> Message:
    try:
        async with asyncio.timeout(silence_s):
            return await receive()
    except TimeoutError:
        message = f"Nothing has arrived for {silence_s:.0f} seconds; send the file again."
        raise Refusal(408, "TOO_SLOW", message) from None
