"""A file that is there whole or not at all, under a name that nobody has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import uuid4

from common.errors import Invalid


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """To be written to; it gets its name when the block ends well, and is removed otherwise.

    Raises Invalid where the name is taken, or becomes so meanwhile, and where there is no such folder.
    """
    _refuse_taken(path)
    if not path.parent.is_dir():
        raise Invalid(f"There is no folder {path.parent}: make it, or name another one.")
    draft = path.with_name(f".{path.name[:100]}.{uuid4().hex}.part")
    try:
        try:
            file = draft.open("xb")
        except OSError as error:
            raise Invalid(f"{path} cannot be written: {error.strerror}.") from error
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _give_name(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _give_name(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)  # which, other than a rename, takes nobody's name
    except FileExistsError:
        _refuse_taken(path)
    except OSError:  # a file system without links
        _refuse_taken(path)
        draft.rename(path)


def _refuse_taken(path: Path) -> None:
    if os.path.lexists(path):
        raise Invalid(f"{path} exists, and is left as it is: name another file, or remove that one first.")
