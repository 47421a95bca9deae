"""Which format a file has, by its content; its name is asked only where the content leaves a choice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.child import ChildError
from datasets.pipeline.reading.archive import open_archive
from datasets.pipeline.reading.columns import recognises
from datasets.pipeline.reading.csv_dialect import sniff
from datasets.pipeline.reading.encoding import WINDOWS_1252, as_utf_8, wide_encoding
from datasets.pipeline.reading.lines import BOM, is_blank
from datasets.pipeline.reading.zipped_data import pieces
from datasets.pipeline.recipe import Format
from datasets.pipeline.rows import MAX_LINE_BYTES, excerpt

HEAD_BYTES = MAX_LINE_BYTES + 65_536
SAMPLED_LINES = 50
MAX_DATA_MEMBERS, MAX_PARQUET_MEMBERS = 1_000, 50  # each takes its time to begin with; a Parquet file, a process

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
    b"PK\3\4": "a zip archive",
    b"PK\5\6": "a zip archive",
}
_PYTHON = re.compile(
    rb"^(?:#!.*python|(?:async\s+def|def|class)\s+\w+\s*[(:\[]|import\s+\w|from\s+[\w.]+\s+import\s|if\s+__name__\s*==)",
    re.MULTILINE,
)
_WANTED = "JSON Lines, JSON, CSV, Parquet, a Python file, or a zip of Python files or of data"


@dataclass(frozen=True)
class Seen:
    """What a file looks like: `formats` that it could be read as, the likeliest first, and the same in words."""

    formats: tuple[Format, ...]
    words: str


def recognise(path: Path, file_name: str, declared: Format, mapped: tuple[str, ...] = ()) -> Format:
    """The format to read the file as, or the members of a zip.

    Raises ChildError: EMPTY_FILE, NOT_UTF8 for UTF-16 and UTF-32 that is no table, FORMAT_UNKNOWN where AUTO finds none, and
    FORMAT_MISMATCH where the file is not what the recipe declares.
    """
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    size = path.stat().st_size
    if is_blank(head.removeprefix(BOM)) and size <= len(head):
        raise ChildError("EMPTY_FILE", f"The file is empty. Upload {_WANTED}.")
    seen = _look_into_zip(path, declared, mapped) if is_zip(path) else look(head, size, file_name, mapped)
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


def is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in (b"PK\3\4", b"PK\5\6")


def _look_into_zip(path: Path, declared: Format, mapped: tuple[str, ...]) -> Seen:
    """Source wins over data, unless data is declared; data has to be of one format."""
    with open_archive(path) as archive:
        if archive.has_source and declared in (Format.AUTO, Format.PYTHON):
            return Seen((Format.PYTHON,), "a zip archive of Python source")
        found: list[tuple[str, Seen]] = []
        _check_number(len(archive.data), MAX_DATA_MEMBERS, "data files")
        for member in archive.data:
            head = b"".join(pieces(archive, member, HEAD_BYTES))
            if not is_blank(head):
                found.append((member.name, look(head, member.info.file_size, member.name, mapped)))
        if found:
            seen = _in_common(found)
            if seen.formats[:1] == (Format.PARQUET,):
                _check_number(len(found), MAX_PARQUET_MEMBERS, "Parquet files")
            return seen
        if archive.has_source:
            return Seen((Format.PYTHON,), "a zip archive of Python source")
        such_as = f" (such as {', '.join(excerpt(name, 60) for name in archive.others)})" if archive.others else ""
        return Seen(
            (), f"a zip archive that holds neither Python source nor data, but {archive.skipped:,} other files{such_as}"
        )


def _check_number(number: int, most: int, what: str) -> None:
    if number > most:
        raise ChildError(
            "TOO_MANY_FILES", f"The zip archive holds {number:,} {what}; at most {most:,} are read. Join them."
        )


def _in_common(found: Sequence[tuple[str, Seen]]) -> Seen:
    first_name, first = found[0]
    formats = tuple(
        one for one in first.formats if one is not Format.PYTHON and all(one in seen.formats for _, seen in found)
    )
    if formats:
        return Seen(formats, f"a zip archive of data ({first.words})")
    name, other = next(((name, seen) for name, seen in found if first.formats[:1] != seen.formats[:1]), found[0])
    words = f"{excerpt(first_name, 60)} is {first.words}"
    return Seen(
        (),
        f"a zip archive in which {words}"
        + (f", but {excerpt(name, 60)} is {other.words}" if name != first_name else ""),
    )


def look(head: bytes, size: int, file_name: str, mapped: tuple[str, ...] = ()) -> Seen:
    if head.startswith(b"PAR1"):
        return Seen((Format.PARQUET,), "a Parquet file")
    for magic, words in _MAGIC.items():
        if head.startswith(magic):
            return Seen((), words)
    if head[257:262] == b"ustar":
        return Seen((), "a tar archive")
    suffix = Path(file_name.lower()).suffix
    if wide := wide_encoding(head):
        table = _look_at_text(as_utf_8(head, wide).removeprefix(BOM), size <= len(head), suffix, mapped)
        if table.formats[:1] == (Format.CSV,):
            return Seen((Format.CSV,), f"{table.words}, in {wide.words}")
        raise ChildError("NOT_UTF8", f"The file is {wide.words} text. Save it as UTF-8 and upload it again.")
    return _look_at_text(head.removeprefix(BOM), size <= len(head), suffix, mapped)


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
    dialect, header = sniff(head[:65_536], mapped)
    if not _is_known(header, mapped):
        _, header_of_old = sniff(as_utf_8(head[:65_536], WINDOWS_1252), mapped)
        header = header_of_old if _is_known(header_of_old, mapped) else header
    if _is_known(header, mapped):
        return table
    if _PYTHON.search(head) or suffix in (".py", ".pyw"):
        return code
    if suffix in (".csv", ".tsv") or (
        len(header) > 1 and head.count(dialect.delimiter.encode()) >= 2 * (len(header) - 1)
    ):
        return table
    begins = excerpt(head.strip().split(b"\n")[0], 60)
    return Seen((), f"text of another kind; it begins with '{begins}'")


def _is_known(header: Sequence[str], mapped: tuple[str, ...]) -> bool:
    return recognises(header) or any(name in header for name in mapped)


def _is_binary(head: bytes) -> bool:
    text = head[:65_536].decode("utf-8", "replace")
    controls = sum(text.count(character) for character in (*map(chr, range(9)), *map(chr, range(14, 32))))
    return 3 * controls + text.count("\ufffd") > 0.3 * len(text)  # the latter may be text in an old encoding
