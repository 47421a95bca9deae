"""A plugin of pytest under which what numpy is asked for ends where memory does: behind it nothing can be read or written.

Indices are checked by numba where it is told to, and the vectors of reading/scan/vectors.py by nobody: with this a process
ends that looks at one byte more than an array has, or writes one.
"""

from __future__ import annotations

import ctypes
import importlib
import mmap
from typing import Any

import numpy as np

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_NOTHING_ALLOWED = 0
GUARDED = (
    "reading.lines",
    "arrays",
    "reading.scan.csv_table",
    "reading.scan.ends_of_lines",
    "reading.scan.json_records",
    "reading.scan.suspects",
)
"""The modules that make arrays for loops that look at vectors."""


def empty(shape: Any, dtype: Any = float) -> np.ndarray:
    """An array whose end is that of a page, and behind it one that nobody may touch."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
    behind = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + pages
    if _LIBC.mprotect(behind, mmap.PAGESIZE, _NOTHING_ALLOWED):
        raise OSError(ctypes.get_errno(), "mprotect")
    bytes_of_it = np.frombuffer(memory, np.uint8, size, pages - size)
    bytes_of_it.fill(0xA5)
    return bytes_of_it.view(kind).reshape(shape)


def zeros(shape: Any, dtype: Any = float) -> np.ndarray:
    return full(shape, 0, dtype)


def full(shape: Any, value: Any, dtype: Any) -> np.ndarray:
    array = empty(shape, dtype)
    array[...] = value
    return array


def frombuffer(buffer: Any, dtype: Any = float, count: int = -1, offset: int = 0) -> np.ndarray:
    found = np.frombuffer(buffer, dtype, count, offset)
    array = empty(found.shape, found.dtype)
    array[...] = found
    array.flags.writeable = False
    return array


class Guarded:
    """numpy, but for what makes arrays."""

    empty, zeros, full, frombuffer = (
        staticmethod(empty),
        staticmethod(zeros),
        staticmethod(full),
        staticmethod(frombuffer),
    )

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


def pytest_collection_finish() -> None:
    for name in GUARDED:
        importlib.import_module(f"datasets.pipeline.{name}").np = Guarded()  # type: ignore[attr-defined]
