"""Numbered lines of a file of any size, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from datasets.pipeline.flags import Positions
from datasets.pipeline.rows import MAX_LINE_BYTES

BATCH_BYTES = 1 << 19  # what is made of it stays within the processor's caches
BOM = b"\xef\xbb\xbf"
PADDING = b"\n" * 64  # behind the last line, for whoever looks at many bytes at once

_NEWLINE = 0x0A


@dataclass(frozen=True)
class Lines:
    """Pieces of a buffer: line n is data[starts[n] : ends[n]], and behind each stands at least one newline or nothing."""

    data: bytes
    starts: Positions
    ends: Positions

    @classmethod
    def of(cls, pieces: Iterable[bytes]) -> Lines:
        pieces = list(pieces)
        ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)) + 1)
        return cls(b"\n".join(pieces), np.concatenate([[0], ends])[:-1], ends - 1)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, number: int) -> bytes:
        return self.data[self.starts[number] : self.ends[number]]

    def __iter__(self) -> Iterator[bytes]:
        return (self.data[start:end] for start, end in zip(self.starts.tolist(), self.ends.tolist(), strict=True))

    def at(self, numbers: Positions) -> Iterator[bytes]:
        starts, ends = self.starts[numbers].tolist(), self.ends[numbers].tolist()
        return (self.data[start:end] for start, end in zip(starts, ends, strict=True))

    def after(self, earlier: Lines) -> Lines:
        """Both, in one buffer."""
        if not len(earlier):
            return self
        begin, end = int(earlier.starts[0]), int(earlier.ends[-1])
        kept = earlier.data[begin:end] + b"\n"
        return Lines(
            kept + self.data,
            np.concatenate([earlier.starts - begin, self.starts + len(kept)]),
            np.concatenate([earlier.ends - begin, self.ends + len(kept)]),
        )

    def chosen(self, numbers: Positions) -> Lines:
        return Lines(self.data, self.starts[numbers], self.ends[numbers])

    def part(self, first: int, stop: int) -> Lines:
        return Lines(self.data, self.starts[first:stop], self.ends[first:stop])

    @cached_property
    def codes(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        return np.frombuffer(self.data, np.uint8)

    @property
    def padded(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """The bytes, of which at least as many as PADDING has stand behind the end of the last of these lines; the first of them is a line
        feed, and the others may be whatever follows."""
        if len(self) and int(self.ends.max()) + len(PADDING) <= len(self.data):
            return self.codes
        return np.frombuffer(self.data + PADDING, np.uint8)

    @property
    def sizes(self) -> Positions:
        return self.ends - self.starts


def _ends_of_lines(data: bytes) -> Positions:
    """Where its line feeds are, but for those of the padding."""
    return np.flatnonzero(np.frombuffer(data, np.uint8, len(data) - len(PADDING)) == _NEWLINE)


def read_blocks(
    path: Path, ends_of_lines: Callable[[bytes], Positions] = _ends_of_lines
) -> Iterator[tuple[int, Lines, int]]:
    """Batches of (number of the first line, lines without their newline, bytes read so far).

    Of a line longer than MAX_LINE_BYTES only as many bytes are kept as the reader needs to see that it is too long, whatever its
    length. A byte order mark at the start of the file is left out.
    """
    with path.open("rb") as file:
        number, done, carried = 1, _skip_bom(file), b""
        while chunk := file.read(BATCH_BYTES):
            done += len(chunk)
            data = b"".join((carried, chunk, PADDING))
            newlines = ends_of_lines(data)
            starts = np.zeros(len(newlines) + 1, np.int64)
            np.add(newlines, 1, out=starts[1:])
            carried = data[starts[-1] : -len(PADDING)][: MAX_LINE_BYTES + 1]
            if len(newlines):
                yield number, Lines(data, starts[:-1], newlines), done
                number += len(newlines)
        if carried:
            yield number, Lines.of([carried]), done


def is_blank(line: bytes) -> bool:
    return not line or line.isspace()


def _skip_bom(file: BinaryIO) -> int:
    if file.read(len(BOM)) == BOM:
        return len(BOM)
    file.seek(0)
    return 0
