"""Loops over bytes and numbers that numba compiles, for uploads that are large enough to pay for its start.

Whoever is compiled imports this, and is imported by none before it is wanted: numba takes about half a second of processor time, and
the memory of the process grows by 120 MB, of which files stand behind 75. What it makes of a loop is kept for the next process, below
NUMBA_CACHE_DIR or beside this file, so that only a host's first one compiles.

A compiled loop neither checks indices nor knows Python's objects: it is given arrays, and writes into arrays that are large enough.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])

HERE = Path(__file__).parent
SOURCES = ("compiled.py", "lines.py", "rows.py", "bias/*.py", "near/*.py", "scan/*.py")
"""All that loops stand in, or have constants from."""


def compiled(*signatures: str) -> Callable[[Loop], Loop]:
    """For arguments of these types, as numba writes them; none other are taken."""
    decorate: Callable[[Loop], Loop] = numba.njit(
        list(signatures), cache=True, nogil=True, boundscheck=False, error_model="numpy"
    )
    return decorate


def digest_of_sources(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in folder.glob(pattern)):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _keep_by_sources() -> None:
    """numba looks whether the file of a loop has changed, and not what that imports: so each state of all of them has its own folder."""
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or HERE / "__pycache__") / digest_of_sources(HERE)[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # where nothing can be kept, numba looks for a place itself
    numba.config.CACHE_DIR = str(folder)


_keep_by_sources()
