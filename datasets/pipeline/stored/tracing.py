"""What came from a person is found again by an address of theirs, a number, or any literal: as it is, or by what masks it.

Placeholders are the same for the same value under the same key, so nothing about a person has to be kept for this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from datasets.pipeline.pii import KINDS
from datasets.pipeline.pii.placeholders import Placeholders
from datasets.pipeline.rows import CONTENT

SEPARATORS = r"[ .\-/()+]"
LOOKED_AT = (*CONTENT, "group", "excerpt")

Steps: TypeAlias = Sequence[Mapping[str, Any]]  # as a manifest has them


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
            yield from _found(parquet.read_row_group(group, columns=[*searched, *places]), searched, places, wanted)


def traces_in_examples(samples: Mapping[str, Any], steps: Steps, wanted: Wanted, before: Steps = ()) -> list[Trace]:
    """In what is shown of rows beside a version: in its samples.json, and in the examples of its manifest's steps.

    Those that stand in `before`, the steps of the version that it was added to, are of that one's upload, and left out.

    What shows there may stand in no row, and in no rejection's excerpt: of a near-duplicate it is where it differs. A row that
    is shown several times is found once.
    """
    theirs = _examples(before)
    examples = [example for example in _examples(steps) if example not in theirs]
    table = pa.Table.from_pylist(list(_shown_in(samples, examples)), schema=_SHOWN)
    found: dict[tuple[int, str | None], Trace] = {}
    for one in _found(table, ["excerpt"], ["line", "source"], wanted):
        place = one.line, one.source
        if place not in found or not one.masked:
            found[place] = one
    return list(found.values())


_SHOWN = pa.schema([("line", pa.int64()), ("source", pa.string()), ("excerpt", pa.string())])


def _shown_in(samples: Mapping[str, Any], examples: list[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each excerpt, and the place of the row that it is of."""
    for cluster in samples["duplicate_clusters"]:
        kept = {"line": cluster["line"], "source": cluster["source"]}
        yield {**kept, "excerpt": cluster["excerpt"]}
        for other in cluster["dropped"]:
            yield {**kept, "excerpt": other["kept_excerpt"]}
            yield {"line": other["line"], "source": other["source"], "excerpt": other["excerpt"]}
    for each in (*samples["masked_places"], *examples):
        for name in ("before", "after"):
            yield {"line": each["line"], "source": each["source"], "excerpt": each[name]}


def _examples(steps: Steps) -> list[Mapping[str, Any]]:
    return [example for step in steps for example in step.get("examples", ())]


def _found(table: pa.Table, searched: list[str], places: list[str], wanted: Wanted) -> Iterator[Trace]:
    literal, masked = (_has(table, searched, pattern) for pattern in (wanted.literal, wanted.masked))
    rows = table.select(places).append_column("as it is", literal).filter(pc.or_(literal, masked)).to_pylist()
    for row in rows:
        yield Trace(row["line"], row.get("source"), row.get("upload"), masked=not row["as it is"])


def _has(table: pa.Table, columns: list[str], pattern: str) -> pa.ChunkedArray:
    found = pa.chunked_array([pa.array([False] * table.num_rows, pa.bool_())])
    for name in columns:
        found = pc.or_(found, pc.fill_null(pc.match_substring_regex(table[name], pattern), False))
    return found


def _pattern(literal: str) -> str:
    digits = re.sub(SEPARATORS, "", literal)
    if digits.isascii() and digits.isdigit():
        return f"{SEPARATORS}*".join(digits)
    return "(?i)" + re.sub(r"([^0-9A-Za-z_\x80-\U0010ffff])", r"\\\1", literal)
