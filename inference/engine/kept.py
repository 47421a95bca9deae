"""Quantized weights of a base model on disk, from one start to the next: of what they are, and whether they are whole.

    <root>/<base>-<digest of its identity>/manifest.json, part-00.safetensors, ...

A folder is written beside, each file synced, the manifest last, and renamed: what has a name is whole, unless a disk
changed it afterwards, and then its manifest tells. Whoever has used one sets the folder's time. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from common.child import sync_folder, write_whole
from training.trainer.artifact import sha256_of

FORMAT = 1
LIBRARIES = ("bitsandbytes", "torch", "transformers")
MANIFEST = "manifest.json"
OF_THE_BASE = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
ABANDONED_S = 3600.0
"""A folder that is being made, and in which nothing has changed for so long, is nobody's."""
UNUSED_S = 30 * 86_400.0


class Unfit(Exception):
    """What is kept cannot be used; the message says why, in a few words."""


@dataclass(frozen=True)
class Identity:
    """What the quantized weights depend on beside the base's files."""

    base_model: str
    revision: str
    quantization: str
    """How: the kind, double or not, the weights of a block, and the type that is computed in."""
    device: str
    """Kinds of devices round in ways of their own."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | made_by()

    @property
    def folder(self) -> str:
        readable = re.sub(r"[^A-Za-z0-9.-]", "-", self.base_model.rpartition("/")[2])[:50].lstrip(".")
        return f"{readable}-{_digest(self.to_json())[:16]}"


def made_by() -> dict[str, Any]:
    """The versions of all that has a say in how weights are quantized and written."""
    return {"format": FORMAT, **{library: version(library) for library in LIBRARIES}}


@dataclass(frozen=True)
class Part:
    """A file of those that are kept."""

    path: Path
    size_bytes: int
    sha256: str

    def verify(self) -> None:
        """Raises Unfit where it has other contents than were written."""
        try:
            if sha256_of(self.path) == self.sha256:
                return
        except OSError as error:
            raise Unfit(f"{self.path.name} cannot be read: {error.strerror}") from error
        raise Unfit(f"{self.path.name} has other contents than were written")


class Kept:
    """The place of one base's quantized weights; safe to use from several processes at once."""

    def __init__(self, root: Path, identity: Identity, base: Path) -> None:
        """`base` is the folder with the base model's own files."""
        self.folder = root / identity.folder
        self._root = root
        self._identity = identity.to_json()
        self._base = base

    def find(self) -> list[Part] | None:
        """The files, if they are of this base and their sizes are right; None where none are kept. Raises Unfit."""
        if not self.folder.is_dir():
            return None
        try:
            manifest = json.loads((self.folder / MANIFEST).read_bytes())
            identity, listed, files = manifest["identity"], manifest["base_files"], manifest["files"]
            parts = [Part(self.folder / each["name"], each["size_bytes"], each["sha256"]) for each in files]
            sizes = [part.path.stat().st_size for part in parts]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unfit(f"it is not whole ({type(error).__name__})") from error
        if identity != self._identity:
            raise Unfit("it is of another base model, revision, or version, or was quantized otherwise")
        for part, size in zip(parts, sizes, strict=True):
            if size != part.size_bytes:
                raise Unfit(f"{part.path.name} has {size:,} bytes instead of {part.size_bytes:,}")
        self._compare_base(manifest, listed)
        with suppress(OSError):
            os.utime(self.folder)
        return parts

    def base_files(self) -> list[dict[str, Any]]:
        """The base model's files as they are now, with their digests: they are all read. Raises OSError."""
        return [{"name": path.name, "sha256": sha256_of(path), **_state(path)} for path in self._paths_of_base()]

    def keep(self, base_files: list[dict[str, Any]], write: Callable[[Path], None]) -> None:
        """Put there what `write` leaves in the folder that it is given.

        `base_files` are from before the base was read: where one has changed since, nothing is kept. Another process
        may have been first. Raises OSError, and what `write` does; nothing is left then.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".", dir=self._root))
        try:
            write(beside)
            parts = sorted(beside.iterdir())
            files = [{"name": p.name, "size_bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in parts]
            for part in parts:
                _sync(part)
            if [_state(path) for path in self._paths_of_base()] != [_state_in(each) for each in base_files]:
                raise OSError("the base model's files have changed meanwhile")
            manifest = {"identity": self._identity, "base_files": base_files, "files": files}
            (beside / MANIFEST).write_text(json.dumps(manifest, indent=1))
            _sync(beside / MANIFEST)
            sync_folder(beside)
            try:
                beside.rename(self.folder)
            except OSError:
                if not self.folder.is_dir():
                    raise
            sync_folder(self._root)
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def discard(self) -> None:
        """Who is loading it meanwhile has its files open, or finds them gone and makes them anew."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _compare_base(self, manifest: dict[str, Any], listed: list[dict[str, Any]]) -> None:
        """Files that nobody has written to since are those that were read then; of others the digest decides."""
        try:
            if [(path.name, _state(path)) for path in self._paths_of_base()] == [
                (each["name"], _state_in(each)) for each in listed
            ]:
                return
            files = self.base_files()
            if [(each["name"], each["sha256"]) for each in files] == [
                (each["name"], each["sha256"]) for each in listed
            ]:
                with suppress(OSError):
                    write_whole(self.folder / MANIFEST, json.dumps(manifest | {"base_files": files}, indent=1).encode())
                return
        except (OSError, KeyError, TypeError) as error:
            raise Unfit(f"the base model's files cannot be compared ({type(error).__name__})") from error
        raise Unfit("the base model's files have changed")

    def _paths_of_base(self) -> list[Path]:
        return sorted({path for pattern in OF_THE_BASE for path in self._base.glob(pattern)})


def remove_old(root: Path, now: float | None = None) -> None:
    """Remove what no start will use: what other versions made, what no start has used for thirty days, and what was
    left half made. One that is loaded stays so: its files are open."""
    now = time.time() if now is None else now
    for folder in root.iterdir() if root.is_dir() else ():
        with suppress(OSError):  # another one removes it, too
            if folder.name.startswith("."):
                is_old = now - max(path.stat().st_mtime for path in (folder, *_inside(folder))) > ABANDONED_S
            else:
                is_old = now - folder.stat().st_mtime > UNUSED_S or not _is_of_now(folder)
            if is_old:
                shutil.rmtree(folder, ignore_errors=True)


def _is_of_now(folder: Path) -> bool:
    """Whether the versions that are installed here made it."""
    try:
        identity = json.loads((folder / MANIFEST).read_bytes())["identity"]
        return {key: identity[key] for key in made_by()} == made_by()
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _inside(folder: Path) -> Iterator[Path]:
    yield from folder.iterdir() if folder.is_dir() else ()


def _state(path: Path) -> dict[str, Any]:
    """What changes when somebody writes to a file, or puts another one into its place."""
    found = path.stat()
    return {"size_bytes": found.st_size, "state": [found.st_mtime_ns, found.st_ctime_ns, found.st_ino]}


def _state_in(listed: dict[str, Any]) -> dict[str, Any]:
    return {"size_bytes": listed["size_bytes"], "state": listed["state"]}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
