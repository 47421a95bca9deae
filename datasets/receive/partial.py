"""What has arrived so far of a file that is sent piece by piece: one file for each upload, on the host that receives it.

Whoever writes to it, or removes it, holds a lock that ends with its process. On another host it does not exist, and the
client begins anew there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from datasets.models import Upload
from datasets.receive.answers import Refusal
from datasets.receive.spool import incoming

SUFFIX = ".part"


def path_of(upload: Upload) -> Path:
    return incoming() / f"{upload.pk}{SUFFIX}"


def size_of(upload: Upload) -> int:
    """How many bytes have arrived."""
    try:
        return path_of(upload).stat().st_size
    except FileNotFoundError:
        return 0


@contextmanager
def held(upload: Upload) -> Iterator[IO[bytes]]:
    """The file, for nobody else meanwhile, to append to. Raises Refusal where somebody holds it."""
    while True:
        file = path_of(upload).open("ab", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            message = "Another request is sending this upload; ask with HEAD how far it has come."
            raise Refusal(423, "LOCKED", message) from None
        if _is_at(path_of(upload), file):
            break
        file.close()  # somebody removed it between our two looks
    with file:
        yield file


def remove_unless_held(path: Path) -> None:
    """Remove a file that nobody is to go on with."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, file):
                path.unlink()
    except (FileNotFoundError, BlockingIOError):
        pass


def another_name_of(path: Path) -> Path:
    """The same bytes under a name that storage may take away: the file stays until the upload says that they are stored."""
    beside = path.with_suffix(f".{uuid4().hex}")
    try:
        os.link(path, beside)
    except OSError:  # a file system without links
        shutil.copyfile(path, beside)
    return beside


def _is_at(path: Path, file: IO[bytes]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
