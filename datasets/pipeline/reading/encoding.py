"""Which encoding a table is in, and the same table in UTF-8.

Bytes that are wrong in their encoding become bytes that are wrong in UTF-8, so that they cost their rows and nothing else.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 1 << 18
HEAD_BYTES = 4_096
_UNDEFINED_IN_1252 = b"\x81\x8d\x8f\x90\x9d"


@dataclass(frozen=True)
class Encoding:
    codec: str
    words: str


UTF_8 = Encoding("utf-8", "UTF-8")
WINDOWS_1252 = Encoding("cp1252", "Windows-1252")
LATIN_1 = Encoding("latin-1", "Latin-1")
_MARKED = {  # the longer marks first: those of UTF-16 begin them
    codecs.BOM_UTF32_LE: Encoding("utf-32-le", "UTF-32"),
    codecs.BOM_UTF32_BE: Encoding("utf-32-be", "UTF-32"),
    codecs.BOM_UTF16_LE: Encoding("utf-16-le", "UTF-16"),
    codecs.BOM_UTF16_BE: Encoding("utf-16-be", "UTF-16"),
}

codecs.register_error("platform.lone_surrogate", lambda error: ("\udfff", error.end))  # type: ignore[attr-defined]


def wide_encoding(head: bytes) -> Encoding | None:
    """UTF-16 or UTF-32, by its mark, or by where the zeros of its ASCII characters are."""
    for mark, encoding in _MARKED.items():
        if head.startswith(mark):
            return encoding
    sample = head[:HEAD_BYTES]
    zeros = [sample[place::4].count(0) * 4 / max(len(sample), 1) for place in range(4)]
    if len(sample) < 4:
        return None
    if min(zeros[1:]) > 0.9 and zeros[0] < 0.2:
        return Encoding("utf-32-le", "UTF-32")
    if min(zeros[:3]) > 0.9 and zeros[3] < 0.2:
        return Encoding("utf-32-be", "UTF-32")
    even, odd = (zeros[0] + zeros[2]) / 2, (zeros[1] + zeros[3]) / 2
    if max(even, odd) > 0.4 and min(even, odd) * 4 < max(even, odd):
        return Encoding("utf-16-le", "UTF-16") if odd > even else Encoding("utf-16-be", "UTF-16")
    return None


def encoding_of(path: Path) -> Encoding:
    """UTF-8, unless it is wide, or more than nine in ten of its other characters are none of UTF-8.

    A few of those are broken rows of a UTF-8 file. Nothing but them is a file in one byte a character, as of an old
    spreadsheet: Windows-1252 is the commonest, and Latin-1 has what that one leaves undefined.
    """
    with path.open("rb") as file:
        if wide := wide_encoding(file.read(HEAD_BYTES)):
            return wide
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        good = bad = 0
        is_latin_1 = False
        while piece := file.read(PIECE_BYTES):
            text = decoder.decode(piece)
            if text.isascii():
                continue
            wrong = max(text.count("\ufffd") - piece.count("\ufffd".encode()), 0)
            good += len(text) - len(text.encode("ascii", "ignore")) - wrong
            bad += wrong
            is_latin_1 = is_latin_1 or len(piece.translate(None, _UNDEFINED_IN_1252)) < len(piece)
        bad += len(decoder.decode(b"", final=True))
    if bad > 9 * good:
        return LATIN_1 if is_latin_1 else WINDOWS_1252
    return UTF_8


def transcode(path: Path, encoding: Encoding, into: Path, each_piece: Callable[[], None]) -> None:
    """Write the text of `path` to `into` in UTF-8, line for line."""
    decoder = codecs.getincrementaldecoder(encoding.codec)("platform.lone_surrogate")
    into.unlink(missing_ok=True)
    with path.open("rb") as file, into.open("wb") as out:
        while piece := file.read(PIECE_BYTES):
            out.write(decoder.decode(piece).encode("utf-8", "surrogatepass"))
            each_piece()
        out.write(decoder.decode(b"", final=True).encode("utf-8", "surrogatepass"))


def as_utf_8(head: bytes, encoding: Encoding) -> bytes:
    """The beginning of a file in UTF-8; a character that is cut off is left out."""
    decoder = codecs.getincrementaldecoder(encoding.codec)("replace")
    return decoder.decode(head).encode("utf-8", "replace")
