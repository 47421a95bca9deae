"""What the demo uploads: the source of the installed Django package, zipped as a user would zip a project."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path


def files_of(package: Path) -> list[Path]:
    """All files of a package in a fixed order, those that are no source included; compiled ones are not the user's."""
    return sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def zip_package(package: Path, target: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> int:
    """Write `package` as a zip with one folder at its top; return how many files it holds.

    `progress` is told the files done, and how many there are.
    """
    files = files_of(package)
    beside = target.with_suffix(".part")
    # a wheel built reproducibly may date its files before 1980, which a zip cannot say
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED, compresslevel=6, strict_timestamps=False) as archive:
        for done, path in enumerate(files, start=1):
            archive.write(path, path.relative_to(package.parent))
            progress(done, len(files))
    beside.replace(target)
    return len(files)
