"""Adapter files on the local disk, by digest, copied from storage when they are first asked for."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from inference.engine.adapters import CONFIG_FILE, WEIGHTS_FILE
from training.trainer.artifact import adapter_digest


def cached_fetch(open_read: Callable[[str], AbstractContextManager[IO[Any]]], root: Path) -> Callable[[str, str], Path]:
    """Return a `fetch(key, digest)` that gives a folder under `root` with the adapter's two files.

    A folder there is whole (written beside, then renamed); one whose files no longer match is fetched anew. The digest
    of a new copy is for the reader to verify. Raises what `open_read` raises.
    """

    def fetch(key: str, digest: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise FileNotFoundError(f"no digest: {digest[:100]!r}")
        folder = root / digest
        if folder.is_dir():
            if _matches(folder, digest):
                return folder
            shutil.rmtree(folder, ignore_errors=True)
        root.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".", dir=root))
        try:
            for name in (CONFIG_FILE, WEIGHTS_FILE):
                with open_read(f"{key}/{name}") as source, (beside / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
            try:
                beside.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
                # another thread was first: equal digests, equal files
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return folder

    return fetch


def _matches(folder: Path, digest: str) -> bool:
    try:
        return adapter_digest(folder) == digest
    except OSError:
        return False
