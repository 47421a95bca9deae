"""Files by key, in whatever django-storages is set to. Keys are t/<organization>/<kind>/<uuid>/..., never a user's name."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO
from uuid import UUID

from django.core.files import File
from django.core.files.storage import default_storage
from django.utils.http import content_disposition_header

CHUNK_BYTES = 1 << 20
SHOWN = frozenset({"text/html"})
"""What a browser shows; anything else it saves."""


def key(organization_id: UUID, kind: str, *parts: object) -> str:
    return "/".join([root(organization_id), kind, *map(str, parts)])


def root(organization_id: UUID) -> str:
    """What all keys of an organization begin with."""
    return f"t/{organization_id}"


class MovableFile(File):  # type: ignore[type-arg]
    """A finished local file that a file system's storage may move instead of copying."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.open("rb"), name=path.name)
        self._path = path

    def temporary_file_path(self) -> str:
        return str(self._path)


def put(blob_key: str, path: Path, *, move: bool = False) -> None:
    """Store a local file. Keys are written once: one that is taken is a bug, and no silent second name is made."""
    if default_storage.exists(blob_key):
        raise FileExistsError(blob_key)
    with MovableFile(path) if move else File(path.open("rb")) as file:
        try:
            stored = default_storage.save(blob_key, file)
            _make_durable(stored)
        except OSError:
            default_storage.delete(blob_key)  # as much of it as a full disk took
            raise
    if stored != blob_key:
        default_storage.delete(stored)
        raise FileExistsError(blob_key)


def _make_durable(blob_key: str) -> None:
    """Where storage is a file system, have the bytes and their name on the disk: what is acknowledged outlives a power cut."""
    try:
        path, root = Path(default_storage.path(blob_key)), Path(default_storage.path(""))
    except NotImplementedError:  # storage in a cloud has done that before it answered
        return
    for each in [path, *path.parents[: len(path.relative_to(root).parts)]]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def get(blob_key: str, path: Path) -> None:
    """Copy a blob into a local file, in constant memory."""
    with open_read(blob_key) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)


def get_linked(blob_key: str, path: Path) -> None:
    """`get` for a file that nobody changes: where storage is a file system, it is the same file under another name."""
    path.unlink(missing_ok=True)  # writing into an earlier link would change what is stored
    try:
        os.link(default_storage.path(blob_key), path)
    except (NotImplementedError, OSError):  # in a cloud, or on another disk
        get(blob_key, path)


def open_read(blob_key: str) -> IO[bytes]:
    file: IO[bytes] = default_storage.open(blob_key, "rb")  # type: ignore[assignment]
    return file


def put_folder(prefix: str, folder: Path, last: str) -> int:
    """Store each file of `folder`, the one named `last` last: its presence says that the others are there. Returns bytes."""
    files = sorted(
        (path for path in folder.iterdir() if path.is_file()), key=lambda path: (path.name == last, path.name)
    )
    for path in files:
        put(f"{prefix}/{path.name}", path)
    return sum(path.stat().st_size for path in files)


def signed_url(blob_key: str, *, lifetime: timedelta, file_name: str, content_type: str) -> str | None:
    """A link to the blob that storage itself answers, for so long; None where storage is a file system, which cannot."""
    try:
        default_storage.path("")
    except NotImplementedError:
        disposition = content_disposition_header(content_type not in SHOWN, file_name)
        given = {"expiration": lifetime, "response_disposition": disposition, "response_type": content_type}
        return str(default_storage.url(blob_key, parameters=given))  # type: ignore[call-arg]
    return None


def delete(blob_key: str) -> None:
    default_storage.delete(blob_key)


def folders(prefix: str) -> list[str]:
    """The names directly below `prefix` that have blobs below them."""
    try:
        return default_storage.listdir(prefix)[0]
    except FileNotFoundError:  # a file system's word for none
        return []


def delete_folder(prefix: str) -> None:
    """Delete the blobs directly below `prefix`."""
    with suppress(FileNotFoundError):  # somebody else was quicker
        for name in default_storage.listdir(prefix)[1]:
            delete(f"{prefix}/{name}")
    delete(prefix)  # the folder itself, where storage has such a thing


def delete_tree(prefix: str) -> None:
    """Delete all blobs below `prefix`, however deep they lie."""
    for name in folders(prefix):
        delete_tree(f"{prefix}/{name}")
    delete_folder(prefix)
