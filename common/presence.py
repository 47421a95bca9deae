"""Whether the worker of an attempt is alive, told by a lock that the kernel lets go at its death.

A lease says the same a minute later, and from any distance; this says it at once, on the host that has the folder.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "worker.lock"


@contextmanager
def present(folder: Path) -> Iterator[None]:
    """Hold the lock of an attempt's folder. Children do not inherit it."""
    beside = folder / f".{LOCK}.{os.getpid()}"
    lock = os.open(beside, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        beside.rename(folder / LOCK)  # under its name it is never seen unlocked while its worker lives
        yield
    finally:
        os.close(lock)


def has_died(folder: Path) -> bool:
    """Whether a worker was here and is no more; False where nobody can tell."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
