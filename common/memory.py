"""What was freed goes back to the machine."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import cache

GIVE_BACK_EVERY_S = 60.0


class GivingBack:
    """Called often, it has malloc return the whole pages among what was freed (glibc's malloc_trim), at most every `every_s`.

    By itself malloc returns only what lies above the last piece in use. A process that lives for weeks, with pieces that come and go,
    would keep the most that it has ever held. It takes two milliseconds, or twenty where half of a hundred megabytes was freed; Python's lock is
    free meanwhile.
    """

    def __init__(self, every_s: float = GIVE_BACK_EVERY_S) -> None:
        self._every_s = every_s
        self._gave_at = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._gave_at >= self._every_s and (trim := _malloc_trim()):
            trim(0)
            self._gave_at = now


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """None on a system without glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim.argtypes = [ctypes.c_size_t]
    return trim
