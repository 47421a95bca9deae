"""Which format a file has, by its content; its name is asked only where the content leaves a choice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from common.child import ChildError
from datasets.pipeline.columns import recognises
from datasets.pipeline.csv_file import sniff
from datasets.pipeline.lines import BOM, is_blank
from datasets.pipeline.recipe import Format
from datasets.pipeline.rows import MAX_LINE_BYTES, excerpt

HEAD_BYTES = MAX_LINE_BYTES + 65_536
SAMPLED_LINES = 50

_MAGIC = {
    b"\x1f\x8b": "a gzip file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ\0": "an xz file",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF document",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"SQLite format 3": "an SQLite database",
}
_UTF_16_OR_32 = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_PYTHON = re.compile(
    rb"^(?:#!.*python|(?:async\s+def|def|class)\s+\w+\s*[(:\[]|import\s+\w|from\s+[\w.]+\s+import\s|if\s+__name__\s*==)",
    re.MULTILINE,
)
_WANTED = "JSON Lines, JSON, CSV, Parquet, a Python file, or a zip of Python files"


@dataclass(frozen=True)
class Seen:
    """What a file looks like: `formats` that it could be read as, the likeliest first, and the same in words."""

    formats: tuple[Format, ...]
    words: str


def recognise(path: Path, file_name: str, declared: Format, mapped: tuple[str, ...] = ()) -> Format:
    """The format to read the file as.

    Raises ChildError: EMPTY_FILE, NOT_UTF8 for UTF-16 and UTF-32, FORMAT_UNKNOWN where AUTO finds none, and
    FORMAT_MISMATCH where the file is not what the recipe declares.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    size = path.stat().st_size
    if is_blank(head.removeprefix(BOM)) and size <= len(head):
        raise ChildError("EMPTY_FILE", f"The file is empty. Upload {_WANTED}.")
    seen = look(head, size, file_name, mapped)
    if declared is Format.AUTO:
        if not seen.formats:
            raise ChildError("FORMAT_UNKNOWN", f"The file is {seen.words}. Upload {_WANTED}.")
        return seen.formats[0]
    if declared not in seen.formats:
        instead = f"set format to AUTO or {seen.formats[0]}" if seen.formats else f"upload {_WANTED}"
        raise ChildError(
            "FORMAT_MISMATCH", f"The format is declared as {declared}, but the file is {seen.words}: {instead}."
        )
    return declared


def look(head: bytes, size: int, file_name: str, mapped: tuple[str, ...] = ()) -> Seen:
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return Seen((Format.PYTHON,), "a zip archive")
    if head.startswith(b"PAR1"):
        return Seen((Format.PARQUET,), "a Parquet file")
    for magic, words in _MAGIC.items():
        if head.startswith(magic):
            return Seen((), words)
    _refuse_utf_16(head)
    return _look_at_text(head.removeprefix(BOM), size <= len(head), Path(file_name.lower()).suffix, mapped)


def _look_at_text(head: bytes, is_whole: bool, suffix: str, mapped: tuple[str, ...]) -> Seen:
    lines = [line.strip() for line in head.split(b"\n")[: SAMPLED_LINES * 4] if not is_blank(line)][:SAMPLED_LINES]
    objects = sum(line.startswith(b"{") and line.endswith(b"}") for line in lines)
    named_lines = suffix in (".jsonl", ".ndjson")
    begins = lines[0][:1] if lines else b""
    if begins in (b"{", b"["):
        document = Seen((Format.JSON,), "one JSON document")
        if begins == b"{" and len(lines) == 1 and is_whole:
            by_name = (Format.JSONL, Format.JSON) if named_lines else (Format.JSON, Format.JSONL)
            return Seen(by_name, "one JSON object")
        if (begins == b"{" and lines[0].endswith(b"}")) or objects * 2 > len(lines) or (named_lines and objects):
            return Seen((Format.JSONL,), "JSON Lines")
        return document
    if objects * 2 > len(lines) or (named_lines and objects):
        return Seen((Format.JSONL,), "JSON Lines")
    if _is_binary(head):
        return Seen((), "binary data")
    return _look_at_table_or_code(head, suffix, mapped)


def _look_at_table_or_code(head: bytes, suffix: str, mapped: tuple[str, ...]) -> Seen:
    table = Seen((Format.CSV, Format.PYTHON), "a table with a header")
    code = Seen((Format.PYTHON, Format.CSV), "Python source")
    delimiter, header = sniff(head[:65_536], mapped)
    if recognises(header) or any(name in header for name in mapped):
        return table
    if _PYTHON.search(head) or suffix in (".py", ".pyw"):
        return code
    if suffix in (".csv", ".tsv") or (len(header) > 1 and head.count(delimiter.encode()) >= 2 * (len(header) - 1)):
        return table
    begins = excerpt(head.strip().split(b"\n")[0], 60)
    return Seen((), f"text of another kind; it begins with '{begins}'")


def _refuse_utf_16(head: bytes) -> None:
    sample = head[:4096]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    undeclared = len(sample) >= 4 and max(even, odd) > 0.4 * (len(sample) // 2) and min(even, odd) * 4 < max(even, odd)
    if head.startswith(_UTF_16_OR_32) or undeclared:
        raise ChildError("NOT_UTF8", "The file is UTF-16 or UTF-32 text. Save it as UTF-8 and upload it again.")


def _is_binary(head: bytes) -> bool:
    text = head[:65_536].decode("utf-8", "replace")
    odd = sum(text.count(character) for character in ("\ufffd", *map(chr, range(9)), *map(chr, range(14, 32))))
    return odd * 10 > len(text)
