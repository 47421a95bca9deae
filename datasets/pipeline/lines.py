"""Numbered lines of a file of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from datasets.pipeline.rows import MAX_LINE_BYTES

BATCH_BYTES = 1 << 19  # what is made of it stays within the processor's caches
BOM = b"\xef\xbb\xbf"


def read_lines(path: Path) -> Iterator[tuple[int, list[bytes], int]]:
    """Batches of (number of the first line, lines without their newline, bytes read so far).

    Of a line longer than MAX_LINE_BYTES only the first MAX_LINE_BYTES + 1 bytes are kept: enough for the reader to see
    that it is too long, whatever its length. A byte order mark at the start of the file is left out.
    """
    with path.open("rb") as file:
        number, done, carried = 1, _skip_bom(file), b""
        while chunk := file.read(BATCH_BYTES):
            done += len(chunk)
            lines = chunk.split(b"\n")
            lines[0] = carried + lines[0]
            carried = lines.pop()[: MAX_LINE_BYTES + 1]
            if lines:
                yield number, lines, done
                number += len(lines)
        if carried:
            yield number, [carried], done


def is_blank(line: bytes) -> bool:
    return not line or line.isspace()


def _skip_bom(file: BinaryIO) -> int:
    if file.read(len(BOM)) == BOM:
        return len(BOM)
    file.seek(0)
    return 0
