"""Uploads packed by gzip or zstd: unpacked as a stream, under limits, into a file of the attempt.

A stream that is cut off or damaged is an error that says where, not an upload of what came before: a version must not
miss rows in silence. What is packed twice is refused.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from common.child import ChildError
from datasets.pipeline.reading.allowance import Allowance

PIECE_BYTES = 1 << 16
SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_PACKED = {**_MAGIC, b"PK\3\4": "zip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}


def packed_by(path: Path) -> str | None:
    """gzip or zstd, by the file's first bytes."""
    with path.open("rb") as file:
        return _kind(file.read(8), _MAGIC)


def unpack(path: Path, into: Path, each_piece: Callable[[], None]) -> int:
    """Unpack `path` to `into`, and give the bytes that it has; `each_piece` is called again and again meanwhile.

    Raises ChildError: GZIP_BROKEN and ZSTD_BROKEN, GZIP_BOMB and ZSTD_BOMB, NESTED_ARCHIVE.
    """
    kind = packed_by(path)
    assert kind
    allowance = Allowance(path.stat().st_size, f"{kind.upper()}_BOMB", f"The {kind} file")
    lines = 1
    with into.open("wb") as out:
        pieces = _gunzip(path) if kind == "gzip" else _unzstd(path)
        try:
            for piece in pieces:
                if not allowance.unpacked and (inner := _kind(piece, _PACKED)):
                    raise ChildError(
                        "NESTED_ARCHIVE", f"The {kind} file holds a {inner} file. Pack the data once, and upload that."
                    )
                allowance.take(len(piece))
                lines += piece.count(b"\n")
                out.write(piece)
                each_piece()
        except (_Broken, zlib.error, pa.ArrowException, EOFError) as error:
            raise _broken(kind, allowance.unpacked, lines, error) from None
        except OSError as error:
            if error.errno is not None:  # of the disk; those of Arrow's decoders have none
                raise
            raise _broken(kind, allowance.unpacked, lines, error) from None
    return allowance.unpacked


def name_within(file_name: str) -> str:
    """What a packed file's content would be called."""
    stem, dot, suffix = file_name.rpartition(".")
    return stem if stem and dot + suffix.lower() in SUFFIXES else file_name


class _Broken(Exception):
    """The stream ends too early, or does not end where it should."""


def _broken(kind: str, unpacked: int, lines: int, error: Exception) -> ChildError:
    return ChildError(
        f"{kind.upper()}_BROKEN",
        f"The {kind} file is cut off or damaged after about {unpacked:,} unpacked bytes, near line {lines:,} "
        f"({' '.join(str(error).split())[:100]}). Make it again and upload it again.",
    )


def _gunzip(path: Path) -> Iterator[bytes]:
    """One member after another; zeros may follow the last one."""
    unpacker = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while packed := file.read(PIECE_BYTES):
            while packed:
                if unpacker.eof:
                    packed = packed.lstrip(b"\0")
                    if not packed:
                        break
                    unpacker = zlib.decompressobj(wbits=31)
                yield unpacker.decompress(packed, PIECE_BYTES)
                packed = unpacker.unconsumed_tail or unpacker.unused_data
        while not unpacker.eof:
            rest = unpacker.decompress(b"", PIECE_BYTES)
            if not rest:
                raise _Broken("it ends too early")
            yield rest


def _unzstd(path: Path) -> Iterator[bytes]:
    with pa.OSFile(str(path)) as file, pa.CompressedInputStream(file, "zstd") as stream:
        while piece := stream.read(PIECE_BYTES):
            yield piece


def _kind(head: bytes, kinds: dict[bytes, str]) -> str | None:
    return next((kind for magic, kind in kinds.items() if head.startswith(magic)), None)
