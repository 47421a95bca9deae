"""Memory that a step frees stays with the process, as the next batch asks for as much again, until a pass has ended."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as in malloc.h
KEPT_BYTES = 64 << 20
LARGEST_KEPT_BYTES = 32 << 20  # the most that glibc takes for it


def keep_freed_memory() -> None:
    """Tell glibc not to give the system back what is freed, up to 64 MiB; another C library is left as it is.

    By default a block of some hundred kilobytes is mapped when it is made and unmapped when it is dropped, and each of its pages costs a
    fault. Steps make a dozen of such arrays a batch: it was a quarter of the time of parsing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)


def give_back_freed_memory() -> None:
    """All pages of which nothing is in use, wherever they lie: what a pass has known of each row is nothing to the next one."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
