"""Loops over bytes and numbers that numba compiles, for uploads that are large enough to pay for its start.

Whoever is compiled imports this, and is imported by none before it is wanted: numba takes about half a second of processor time, and
the memory of the process grows by 120 MB, of which files stand behind 75. What it makes of a loop is kept for the next process, below
NUMBA_CACHE_DIR or beside this file, so that only a host's first one compiles; where nothing can be kept, each one does.

A compiled loop neither checks indices nor knows Python's objects: it is given arrays, and writes into arrays that are large enough.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numba

Loop = TypeVar("Loop", bound=Callable[..., Any])

HERE = Path(__file__).parent
SOURCES = ("compiled.py", "rows.py", "bias/*.py", "near/*.py", "reading/lines.py", "reading/scan/*.py")
"""All that loops stand in, or have constants from."""

UNUSED_DAYS = 7
"""What was compiled of other sources, of an earlier version or of one that stands beside this one, goes if nobody has used it so long."""
_OF_SOURCES = re.compile(r"[0-9a-f]{16}")
_OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
_NOT_KEPT = (RuntimeError, OSError, EOFError, pickle.UnpicklingError)
"""The folder cannot be written any more, the disk is full, or what is there is not whole."""

part: Callable[[Loop], Loop] = numba.njit(**_OPTIONS)
"""Compiled into each loop that calls it, and kept with it."""


def compiled(*signatures: str) -> Callable[[Loop], Loop]:
    """For arguments of these types, as numba writes them; none other are taken."""

    def decorate(loop: Loop) -> Loop:
        if _is_kept:
            try:
                return numba.njit(list(signatures), cache=True, **_OPTIONS)(loop)
            except _NOT_KEPT:
                pass
        return numba.njit(list(signatures), **_OPTIONS)(loop)

    return decorate


def digest_of_sources(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in folder.glob(pattern)):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _keep_by_sources(root: Path) -> bool:
    """Whether what is compiled can be kept. numba looks whether the file of a loop has changed, and not what that imports: so each state
    of all of them has its own folder, and other places that it would look for are none."""
    folder = root / digest_of_sources(HERE)[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        os.utime(folder)
    except OSError:
        return False
    remove_unused(root, folder, time.time() - UNUSED_DAYS * 86_400)
    numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES = str(folder), "UserProvidedCacheLocator"
    return True


def remove_unused(root: Path, used: Path, since: float) -> None:
    """Remove what `root` holds of other sources than `used`, if nobody has used it `since` then. Who begins to just now compiles anew."""
    with suppress(OSError):  # another one removes them, too
        for folder in root.iterdir():
            if folder != used and _OF_SOURCES.fullmatch(folder.name) and folder.stat().st_mtime < since:
                shutil.rmtree(folder, ignore_errors=True)


_is_kept = _keep_by_sources(Path(os.environ.get("NUMBA_CACHE_DIR") or HERE / "__pycache__"))
