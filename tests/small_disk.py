"""A small file system of its own, to be filled."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = 4096
MOUNT = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted && exec cat'


class SmallDisk:
    """A tmpfs in a namespace of its own; `path` leads there, also for other processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def free_bytes(self) -> int:
        return shutil.disk_usage(self.path).free

    def leave(self, size_bytes: int) -> None:
        """Fill it up to so many free bytes, in pages of 4 KiB."""
        assert size_bytes % PAGE == 0 and size_bytes < self.free_bytes
        with (self.path / ".ballast").open("ab") as ballast:
            ballast.write(bytes(self.free_bytes - size_bytes))
        assert self.free_bytes == size_bytes

    def make_room(self) -> None:
        (self.path / ".ballast").unlink()


@contextmanager
def small_disk(mount_point: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a file system of that size. Raises OSError where none can be had.

    It belongs to a process that holds it, so it is gone with that process, whatever dies.
    """
    mount_point.mkdir()
    holder = subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", MOUNT, "sh", str(size_bytes), str(mount_point)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin and holder.stdout
    try:
        if holder.stdout.readline() != "mounted\n":
            raise OSError(f"No file system can be mounted here (exit status {holder.wait()}).")
        yield SmallDisk(Path(f"/proc/{holder.pid}/root{mount_point}"))
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait()
