"""What a zip from somebody unknown holds, source or data, within limits. Source is never unpacked to disk."""

from __future__ import annotations

import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from common.child import ChildError
from datasets.pipeline.reading.allowance import MAX_RATIO, Allowance
from datasets.pipeline.reading.source_parser import MAX_SOURCE_BYTES
from datasets.pipeline.rows import Reason, Unusable

MAX_MEMBERS = 100_000
MAX_NAME_BYTES = 1_024
SOURCE_SUFFIXES = (".py", ".pyw")
DATA_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

_END = struct.Struct("<4s4H2LH")  # end of central directory
_END_64_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY_BYTES = 46  # a central directory entry without its name, extra field, and comment
_BROKEN = "The zip archive is cut off or damaged ({}). Make it again and upload it again."


@dataclass(frozen=True)
class Member:
    """A member that claims to be source or data, or that nobody should unpack; `refused` says why it is not read."""

    info: zipfile.ZipInfo
    refused: Reason | None

    @property
    def name(self) -> str:
        return self.info.filename


class Archive:
    """An opened zip: its source members in the order of their names, those that are data, and how many are no source."""

    def __init__(self, file: zipfile.ZipFile) -> None:
        self._file = file
        self.members: list[Member] = []
        self.data: list[Member] = []
        self.skipped = 0
        self.others: list[str] = []
        for info in sorted(file.infolist(), key=lambda one: (one.filename, one.header_offset)):
            refused = _refusal(info)
            if refused or _is_source(info.filename):
                self.members.append(Member(info, refused))
            elif not info.is_dir():
                self.skipped += 1
                if _has_suffix(info.filename, DATA_SUFFIXES):
                    self.data.append(Member(info, _cannot_unpack(info)))
                self.others.append(info.filename) if len(self.others) < 5 else None

    @property
    def has_source(self) -> bool:
        return any(_is_source(member.name) for member in self.members)

    def open(self, member: Member) -> IO[bytes]:
        return self._file.open(member.info)

    def read(self, member: Member) -> bytes:
        """The member's bytes. Raises Unusable."""
        if member.refused:
            raise Unusable(member.refused)
        try:
            with self._file.open(member.info) as file:
                data = file.read(MAX_SOURCE_BYTES + 1)  # its declared size may be a lie
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError):
            raise Unusable(Reason.UNREADABLE_MEMBER) from None
        if len(data) > MAX_SOURCE_BYTES:
            raise Unusable(Reason.FILE_TOO_LARGE)
        return data


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip. Raises ChildError: ZIP_BROKEN for what is no whole zip, ZIP_BOMB for one beyond the limits."""
    with path.open("rb") as file:
        _count_members(file)  # before zipfile makes an object of each
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, UnicodeDecodeError, NotImplementedError, ValueError, EOFError, OSError) as error:
            raise ChildError("ZIP_BROKEN", _BROKEN.format(str(error)[:100])) from None
        with archive:
            _check_size(archive, path.stat().st_size)
            yield Archive(archive)


def _check_size(archive: zipfile.ZipFile, packed: int) -> None:
    """Over the whole file: overlapping members would deceive a sum of packed sizes."""
    Allowance(packed, "ZIP_BOMB", "The archive").take(sum(info.file_size for info in archive.infolist()))


def _count_members(file: BinaryIO) -> None:
    """Walk the central directory by its headers, whatever number the archive claims."""
    count, place, end = 0, *_directory(file)
    file.seek(place)
    while place < end:
        entry = file.read(_ENTRY_BYTES)
        if len(entry) < _ENTRY_BYTES or entry[:4] != b"PK\1\2":
            raise ChildError("ZIP_BROKEN", _BROKEN.format("its directory cannot be read"))
        extra = sum(struct.unpack_from("<3H", entry, 28))
        file.seek(extra, 1)
        place += _ENTRY_BYTES + extra
        count += 1
        if count > MAX_MEMBERS:
            raise ChildError("ZIP_BOMB", f"The archive has more than {MAX_MEMBERS:,} members.")


def _directory(file: BinaryIO) -> tuple[int, int]:
    """(start, end) of the central directory, found the way zipfile finds it."""
    size = file.seek(0, 2)
    tail_start = max(0, size - _END.size - 65_535)
    file.seek(tail_start)
    tail = file.read()
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) - place < _END.size:
        raise ChildError("ZIP_BROKEN", _BROKEN.format("it has no directory"))
    length = _END.unpack_from(tail, place)[5]
    end = tail_start + place
    if end >= _END_64_LOCATOR.size + _END_64.size:
        file.seek(end - _END_64_LOCATOR.size)
        if file.read(4) == b"PK\6\7":
            end -= _END_64_LOCATOR.size + _END_64.size
            file.seek(end)
            record = file.read(_END_64.size)
            if record[:4] != b"PK\6\6":
                raise ChildError("ZIP_BROKEN", _BROKEN.format("its directory cannot be read"))
            length = _END_64.unpack(record)[8]
    if length > end:
        raise ChildError("ZIP_BROKEN", _BROKEN.format("its directory cannot be read"))
    return end - length, end


def _refusal(info: zipfile.ZipInfo) -> Reason | None:
    name = info.filename
    parts = name.replace("\\", "/").split("/")
    is_unsafe = (
        name.startswith(("/", "\\"))
        or name[1:2] == ":"
        or ".." in parts
        or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES
        or any(unicodedata.category(character).startswith("C") for character in name)  # NUL, right-to-left marks
    )
    if is_unsafe:
        return Reason.UNSAFE_NAME
    if stat.S_ISLNK(info.external_attr >> 16):
        return Reason.SYMLINK
    if not _is_source(name):
        return None
    if refused := _cannot_unpack(info):
        return refused
    if info.file_size > MAX_SOURCE_BYTES:
        return Reason.FILE_TOO_LARGE
    return Reason.RATIO_TOO_HIGH if info.file_size > MAX_RATIO * max(info.compress_size, 1) else None


def _cannot_unpack(info: zipfile.ZipInfo) -> Reason | None:
    if info.flag_bits & 1:
        return Reason.ENCRYPTED
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return Reason.UNREADABLE_MEMBER  # zipfile unpacks the others in pieces of any size
    return None


def _is_source(name: str) -> bool:
    return _has_suffix(name, SOURCE_SUFFIXES)


def _has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    """Files by their suffix, without what macOS adds to its zips."""
    last = name.rsplit("/", 1)[-1]
    return last.lower().endswith(suffixes) and not last.startswith("._") and not name.startswith("__MACOSX/")
