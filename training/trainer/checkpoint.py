"""Checkpoints as folders of files that are either whole or not there. Imports no torch.

A checkpoint is written beside its place, each file is synced, then the manifest with the sha256 of each file, and last
the folder is renamed to step-000010. So a folder of that name is whole unless a disk changed it afterwards, and
then its manifest tells.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.child import sync_folder
from training.trainer.artifact import sha256_of

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole: its folder, its step, its files' size, and the sha256 of its manifest."""

    folder: Path
    step: int
    size_bytes: int
    sha256: str


def save(checkpoints: Path, step: int, write_files: Callable[[Path], None]) -> Checkpoint:
    """Make checkpoints/step-<step> from the files that `write_files` puts into the folder it is given.

    What dies meanwhile leaves nothing of that name. A checkpoint that is there and whole stays as it is.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    folder = checkpoints / f"step-{step:06d}"
    if present := whole(folder):
        return present
    beside = checkpoints / f".{folder.name}.{os.getpid()}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        write_files(beside)
        files = sorted(beside.iterdir())
        listed = [{"name": f.name, "sha256": sha256_of(f), "size_bytes": f.stat().st_size} for f in files]
        for file in files:
            _sync(file)
        manifest = beside / MANIFEST
        manifest.write_text(json.dumps({"step": step, "files": listed}, indent=1))
        _sync(manifest)
        sync_folder(beside)
        shutil.rmtree(folder, ignore_errors=True)  # one that is not whole
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    sync_folder(checkpoints)
    made = whole(folder)
    if made is None:
        raise OSError(f"{folder.name} reads back differently from what was written.")
    return made


def whole(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in `folder` if each file is as its manifest says, else None."""
    name = _NAME.fullmatch(folder.name)
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        size_bytes = 0
        for file in manifest["files"]:
            if sha256_of(folder / file["name"]) != file["sha256"]:
                return None
            size_bytes += file["size_bytes"]
        if name is None or manifest["step"] != int(name[1]):
            return None
        return Checkpoint(folder, manifest["step"], size_bytes, sha256_of(folder / MANIFEST))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def newest_whole(checkpoints: Path, *, before_step: int | None = None) -> Checkpoint | None:
    """Return the checkpoint of the highest step (below `before_step`) whose files match their digests, if any."""
    for step in sorted(_steps(checkpoints), reverse=True):
        if (before_step is None or step < before_step) and (found := whole(checkpoints / f"step-{step:06d}")):
            return found
    return None


def whole_or_older(folder: Path) -> Checkpoint | None:
    """Return the checkpoint in `folder` if it is whole, else the newest whole one before it beside it, if any."""
    name = _NAME.fullmatch(folder.name)
    return whole(folder) or (newest_whole(folder.parent, before_step=int(name[1])) if name else None)


def rotate(checkpoints: Path, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints, and what an earlier death left half written."""
    for step in sorted(_steps(checkpoints))[:-keep]:
        shutil.rmtree(checkpoints / f"step-{step:06d}", ignore_errors=True)
    for leftover in checkpoints.glob(".step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _steps(checkpoints: Path) -> list[int]:
    if not checkpoints.is_dir():
        return []
    return [int(name[1]) for entry in checkpoints.iterdir() if (name := _NAME.fullmatch(entry.name))]


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
