"""What came from a person is found again by an address of theirs, a number, or any literal: as it is, or by what masks it.

Placeholders are the same for the same value under the same key, so nothing about a person has to be kept for this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.pipeline.pii import KINDS
from datasets.pipeline.pii.placeholders import Placeholders
from datasets.pipeline.rows import CONTENT

SEPARATORS = r"[ .\-/()+]"
LOOKED_AT = (*CONTENT, "group", "excerpt")


@dataclass(frozen=True)
class Trace:
    """A row, or the excerpt of a rejection, that has the literal in it."""

    line: int
    source: str | None
    upload_sha256: str | None
    """None in versions of an earlier release, and in rejections."""
    masked: bool
    """Only placeholders stand for it there."""


@dataclass(frozen=True)
class Wanted:
    """What to look for, as two patterns."""

    literal: str
    masked: str

    @classmethod
    def of(cls, literal: str, key: bytes) -> Wanted:
        """Case is ignored, and in numbers so are the separators between digits. `key` is the organization's."""
        placeholders = Placeholders(key)
        masks = [form(kind, literal) for kind in KINDS for form in (placeholders.word, placeholders.number)]
        return cls(_pattern(literal), "|".join(masks))


def traces(file: BinaryIO, wanted: Wanted) -> Iterator[Trace]:
    """In the order of the file, a row group at a time."""
    with pq.ParquetFile(file) as parquet:
        names = parquet.schema_arrow.names
        searched = [name for name in LOOKED_AT if name in names]
        places = [name for name in ("line", "source", "upload") if name in names]
        for group in range(parquet.num_row_groups):
            table = parquet.read_row_group(group, columns=[*searched, *places])
            literal, masked = (_has(table, searched, pattern) for pattern in (wanted.literal, wanted.masked))
            found = pc.or_(literal, masked)
            rows = table.select(places).append_column("as it is", literal).filter(found).to_pylist()
            for row in rows:
                yield Trace(row["line"], row.get("source"), row.get("upload"), masked=not row["as it is"])


def _has(table: pa.Table, columns: list[str], pattern: str) -> pa.ChunkedArray:
    found = pa.chunked_array([pa.array([False] * table.num_rows)])
    for name in columns:
        found = pc.or_(found, pc.fill_null(pc.match_substring_regex(table[name], pattern), False))
    return found


def _pattern(literal: str) -> str:
    digits = re.sub(SEPARATORS, "", literal)
    if digits.isascii() and digits.isdigit():
        return f"{SEPARATORS}*".join(digits)
    return "(?i)" + re.sub(r"([^0-9A-Za-z_\x80-\U0010ffff])", r"\\\1", literal)
