"""Reading what a child process with limits of its own has to say."""

from __future__ import annotations

import os
import select

WALL_SECONDS = 300.0  # a child's own limit is in CPU time; this one is for a machine that stands still


class ChildDied(Exception):
    """It ended, or stands still, in the middle of what it had to say."""


def read_exactly(descriptor: int, size: int) -> bytes:
    pieces = []
    while size > 0:
        readable, _, _ = select.select([descriptor], [], [], WALL_SECONDS)
        piece = os.read(descriptor, min(size, 1 << 20)) if readable else b""
        if not piece:
            raise ChildDied
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
