"""Small file systems that can be filled, and files that can be torn.

    with Tmpfs(platform.home / "attempts", size_mb=8) as disk: disk.fill(); disk.empty()

A mount needs root; own_mounts() gives a process mounts of its own, as root or not, which end with it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import subprocess
from enum import StrEnum
from pathlib import Path
from random import Random
from types import TracebackType

from tests.faults.proof import NotProven

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
BALLAST = ".ballast"


def own_mounts() -> None:
    """Give this thread, and whatever it starts from now on, mounts that nobody else sees and that end with it."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)) != 0:
        raise NotProven(f"this process may not have mounts of its own: {os.strerror(ctypes.get_errno())}")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


class Tmpfs:
    """A file system of some megabytes at `folder`, whose content it hides and brings back at its end."""

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        self._size_mb = size_mb

    def __enter__(self) -> Tmpfs:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size_mb}m,mode=700", "tmpfs", str(self.folder)]
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        if mounted.returncode != 0:
            raise NotProven(f"mounting a small file system needs root, or own_mounts(): {mounted.stderr.strip()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """Leave not one byte; proven by a file that cannot be written."""
        with (self.folder / BALLAST).open("ab", buffering=0) as ballast:
            for block in (1 << 20, 1 << 12):
                try:
                    while True:
                        ballast.write(b"\0" * block)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
        if self.free_bytes > 0:
            raise NotProven(f"{self.folder} has {self.free_bytes} bytes left")

    def empty(self) -> None:
        """Take the ballast away again."""
        (self.folder / BALLAST).unlink(missing_ok=True)
        if self.free_bytes == 0:
            raise NotProven(f"{self.folder} is still full")


class Tear(StrEnum):
    TRUNCATE = "truncate"
    FLIP = "flip"


def tear(path: Path, how: Tear, random: Random) -> None:
    """Cut a file off somewhere, or flip one of its bits; proven by its digest."""
    content = path.read_bytes()
    if not content:
        raise NotProven(f"{path} is empty")
    at = random.randrange(len(content))
    torn = (
        content[:at]
        if how is Tear.TRUNCATE
        else content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :]
    )
    with path.open("r+b") as file:  # the same file, as a bad disk would have it
        file.write(torn)
        file.truncate()
    if hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content).digest():
        raise NotProven(f"{path} is as it was")
