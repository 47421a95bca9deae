"""A zip of data files, all of one format: each is unpacked by itself and read as that format; its name is its rows' source.

Where a member cannot be unpacked, the upload ends: a version must not miss the rows of a whole file.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from common.child import ChildError
from datasets.pipeline.reading.allowance import Allowance
from datasets.pipeline.reading.archive import Archive, Member, open_archive
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.compressed import PIECE_BYTES
from datasets.pipeline.rows import ROWS, Chunk, Parsed, Rejection, excerpt, parse_rejection

_UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
_SOURCE = ROWS.get_field_index("source")


def read_zip(
    path: Path,
    into: Path,
    read: Callable[[Path], Iterator[Chunk]],
    skipped: dict[str, int],
    each_piece: Callable[[], None],
) -> Iterator[Chunk]:
    """Chunks of all data members, in the order of their names; `into` is where each of them lies while it is read."""
    with open_archive(path) as archive:
        skipped["NOT_DATA"] = archive.skipped - len(archive.data)
        yield _Refused([member for member in archive.members if member.refused])
        allowance = Allowance(path.stat().st_size, "ZIP_BOMB", "The archive")
        total = sum(member.info.file_size for member in archive.data) or 1
        done = 0
        for member in archive.data:
            if _unpack(archive, member, into, allowance, each_piece):
                share = member.info.file_size / total
                try:
                    for chunk in read(into):
                        yield _Sourced(chunk, member.name, done / total + share * chunk.progress)
                except ChildError as error:
                    raise ChildError(error.code, f"In {excerpt(member.name, 100)}: {error.message}") from None
            done += member.info.file_size


def _unpack(archive: Archive, member: Member, into: Path, allowance: Allowance, each_piece: Callable[[], None]) -> bool:
    """Write the member to `into`; False where there is nothing in it but whitespace. Raises ChildError."""
    holds_something = False
    into.unlink(missing_ok=True)
    with into.open("wb") as out:
        for piece in pieces(archive, member):
            allowance.take(len(piece))
            out.write(piece)
            holds_something = holds_something or not piece.isspace()
            each_piece()
    return holds_something


def pieces(archive: Archive, member: Member, most: int | None = None) -> Iterator[bytes]:
    """The member's bytes, the first `most` of them or all. Raises ChildError: ZIP_BROKEN."""
    left = most if most is not None else member.info.file_size + 1
    try:
        if member.refused:
            raise RuntimeError(member.refused)
        with archive.open(member) as file:
            while left > 0 and (piece := file.read(min(PIECE_BYTES, left))):
                left -= len(piece)
                yield piece
    except _UNREADABLE as error:
        raise ChildError(
            "ZIP_BROKEN",
            f"{excerpt(member.name, 100)} in the zip archive cannot be unpacked ({str(error)[:100]}). "
            "Make the archive again, without a password, and upload it again.",
        ) from None


class _Sourced:
    """A chunk whose records are a member's."""

    def __init__(self, chunk: Chunk, source: str, progress: float) -> None:
        self.progress = progress
        self._chunk, self._source = chunk, source

    def sample(self, most: int) -> list[Mapping[str, Any]]:
        return self._chunk.sample(most)

    def parsed(self, columns: Columns) -> Parsed:
        batch = self._chunk.parsed(columns)
        sources = pa.repeat(pa.scalar(self._source, pa.string()), batch.rows.num_rows)
        return replace(
            batch,
            rows=batch.rows.set_column(_SOURCE, ROWS.field(_SOURCE), sources),
            unfit=self._placed(batch.unfit),
            rejections=self._placed(batch.rejections),
        )

    def _placed(self, rejections: list[Rejection]) -> list[Rejection]:
        return [rejection._replace(source=excerpt(self._source)) for rejection in rejections]


class _Refused:
    """Members that nobody should unpack."""

    def __init__(self, members: list[Member]) -> None:
        self.progress = 0.0
        self._members = members

    def sample(self, _: int) -> list[Mapping[str, Any]]:
        return []

    def parsed(self, _: Columns) -> Parsed:
        rejections = [
            parse_rejection(1, member.refused, member.name, source=excerpt(member.name))
            for member in self._members
            if member.refused
        ]
        return Parsed(ROWS.empty_table(), [], rejections, lambda place: {})
