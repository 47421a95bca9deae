"""The steps between parsing and storing. Each takes a batch and gives kept rows and rejections: in == kept + dropped.

A step is a frozen dataclass of its choices; `begin` gives the function that is applied to one batch after another, with
whatever it has to remember between them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from datasets.pipeline.columns import Columns
from datasets.pipeline.recipe import Split
from datasets.pipeline.rows import CONTENT, ROWS, Reason, Record, Rejection, Unusable, excerpt

SPLITS = ("train", "validation", "test")
DIGEST_BYTES = 16

# What rows carry from step to step beside what is stored.
WITH_DIGEST = ROWS.append(pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False))
WITH_SPLIT = WITH_DIGEST.append(pa.field("split", pa.string(), nullable=False))


@dataclass(frozen=True)
class Outcome:
    kept: pa.Table
    rejections: list[Rejection]


@dataclass(frozen=True)
class Validate:
    """Types and lengths: what comes out is a typed table with a digest of each row's content.

    min_characters counts the completion, the text, or the contents of a chat, without surrounding whitespace; a prompt
    has to hold something, too. max_characters counts the whole row.
    """

    columns: Columns
    min_characters: int
    max_characters: int

    name = "validate"

    def begin(self) -> Callable[[list[Record]], Outcome]:
        return self._apply

    def _apply(self, records: list[Record]) -> Outcome:
        kept, rejections = [], []
        for record in records:
            try:
                row = self.columns.row(record.fields)
                self._check_lengths(row)
            except Unusable as error:
                seen = excerpt(_shown(record))
                rejections.append(Rejection(record.line, self.name, error.reason, seen, _named(error), record.source))
                continue
            content = {name: row.get(name) for name in CONTENT}
            kept.append(
                {
                    **content,
                    "group": row["group"],
                    "source": record.source,
                    "line": record.line,
                    "digest": digest(content),
                }
            )
        return Outcome(pa.Table.from_pylist(kept, schema=WITH_DIGEST), rejections)

    def _check_lengths(self, row: dict[str, str | None]) -> None:
        if row.get("prompt") is not None:
            sizes = {"prompt": len(row["prompt"] or ""), "completion": len(row["completion"] or "")}
            if not (row["prompt"] or "").strip():
                raise Unusable(Reason.TOO_SHORT, self.columns.prompt)
            learned, column = row["completion"] or "", self.columns.completion
        elif row.get("text") is not None:
            learned, column = row["text"] or "", self.columns.text
            sizes = {"text": len(learned)}
        else:
            contents = [message["content"] for message in json.loads(row["messages"] or "[]")]
            learned, column = "\n".join(contents), self.columns.messages
            sizes = {"messages": sum(map(len, contents))}
        if len(learned.strip()) < max(self.min_characters, 1):
            raise Unusable(Reason.TOO_SHORT, column)
        if sum(sizes.values()) > self.max_characters:
            longest = max(sizes, key=lambda name: sizes[name])
            raise Unusable(Reason.TOO_LONG, getattr(self.columns, longest))


@dataclass(frozen=True)
class ExactDedup:
    """Keeps the first of rows with the same content, and says of the others where that one stands."""

    name = "dedup_exact"

    def begin(self) -> Callable[[pa.Table], Outcome]:
        first_places: dict[bytes, str] = {}

        def apply(rows: pa.Table) -> Outcome:
            rejections, keep = [], []
            places = zip(rows["digest"].to_pylist(), rows["source"].to_pylist(), rows["line"].to_pylist(), strict=True)
            for position, (key, source, line) in enumerate(places):
                keep.append(key not in first_places)
                if keep[-1]:
                    first_places[key] = f"line {line}" if source is None else f"{source}, line {line}"
                else:
                    rejections.append(_duplicate(rows, position, first_places[key]))
            return Outcome(rows.filter(pa.array(keep, pa.bool_())), rejections)

        return apply


@dataclass(frozen=True)
class AssignSplit:
    """Gives each row its split by a hash of the seed and its group, or its content where it has no group.

    So the rows of a group never straddle splits, and a row keeps its split when the dataset grows. (Where no row falls
    into train, storing makes the larger of the other splits train: see shards.py.)
    """

    split: Split

    name = "split"

    def begin(self) -> Callable[[pa.Table], Outcome]:
        return self._apply

    def _apply(self, rows: pa.Table) -> Outcome:
        names = [self.of(group, key) for group, key in _groups(rows)]
        return Outcome(rows.append_column(WITH_SPLIT.field("split"), [pa.array(names, pa.string())]), [])

    def of(self, group: str | None, content: bytes) -> str:
        key = b"content\0" + content if group is None else b"group\0" + group.encode()
        point = int.from_bytes(hashlib.sha256(f"{self.split.seed}\0".encode() + key).digest()[:4]) / 2**32
        last = max(name for name in range(3) if getattr(self.split, SPLITS[name]) > 0)  # takes what rounding leaves
        bound = 0.0
        for name in SPLITS[:last]:
            bound += getattr(self.split, name)
            if point < bound:
                return name
        return SPLITS[last]


def digest(content: dict[str, str | None]) -> bytes:
    """A hash of a row's content alone, not of its place or group."""
    hasher = hashlib.sha256()
    for name in CONTENT:
        value = content[name]
        if value is not None:
            data = value.encode()
            hasher.update(b"%s\0%d\0" % (name.encode(), len(data)))
            hasher.update(data)
    return hasher.digest()[:DIGEST_BYTES]


def _groups(rows: pa.Table) -> Iterator[tuple[str | None, bytes]]:
    return zip(rows["group"].to_pylist(), rows["digest"].to_pylist(), strict=True)


def _duplicate(rows: pa.Table, position: int, kept: str) -> Rejection:
    row = rows.slice(position, 1).to_pylist()[0]
    shown = next((row[name] for name in CONTENT if row[name] is not None), "")
    seen = excerpt(f"same as {kept}: {shown}")
    return Rejection(row["line"], ExactDedup.name, Reason.DUPLICATE, seen, None, row["source"])


def _shown(record: Record) -> str:
    """The beginning of a record, as the user would know it."""
    shown = {name: value[:300] if isinstance(value, str) else value for name, value in list(record.fields.items())[:20]}
    return json.dumps(shown, ensure_ascii=False, default=str)


def _named(error: Unusable) -> str | None:
    return excerpt(error.field, 100) if error.field is not None else None
