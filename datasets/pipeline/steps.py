"""The steps between parsing and storing. Each takes a batch and gives kept rows and rejections: in == kept + dropped.

A step is a frozen dataclass of its choices. `begin` gives the function that is applied to one batch after another, with
whatever it has to remember between them.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datasets.pipeline.first_rows import FirstRows
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.recipe import Split
from datasets.pipeline.rows import CONTENT, ROWS, Outcome, Parsed, Reason, Rejection, Unusable, excerpt, unfit
from datasets.pipeline.stored.digests import DIGEST_BYTES, digest_halves, digests, keys_of

SPLITS = ("train", "validation", "test")

# What rows carry from step to step beside what is stored.
WITH_DIGEST = ROWS.append(pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False))
WITH_SPLIT = WITH_DIGEST.append(pa.field("split", pa.string(), nullable=False))

# What str.strip() takes for whitespace: not quite what Arrow does.
_WHITESPACE = "".join(character for character in map(chr, range(0x3001)) if character.isspace())


@dataclass(frozen=True)
class Validate:
    """Lengths: what comes out has a digest of each row's content.

    min_characters counts the completion, the text, or the contents of a chat, without surrounding whitespace; a prompt
    has to hold something, too. max_characters counts the whole row.
    """

    columns: Columns
    min_characters: int
    max_characters: int

    name = "validate"

    def begin(self) -> Callable[[Parsed], Outcome]:
        return self._apply

    def _apply(self, batch: Parsed) -> Outcome:
        rows = batch.rows
        bad = np.flatnonzero(~self._have_length(rows)).tolist()
        rejections = [*batch.unfit, *(self._rejection(batch, place) for place in bad)]
        if bad:
            keep = np.ones(rows.num_rows, np.bool_)
            keep[bad] = False
            rows = rows.filter(pa.array(keep))
        return Outcome(rows.append_column(WITH_DIGEST.field("digest"), digests(rows)), rejections)

    def _have_length(self, rows: pa.Table) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """For each row whether it is neither too short nor too long."""
        if rows["messages"].null_count < rows.num_rows:
            return np.array([self._problem(row) is None for row in rows.select(CONTENT).to_pylist()], np.bool_)
        fine = np.ones(rows.num_rows, np.bool_)
        total = np.zeros(rows.num_rows, np.int64)
        for name in ("prompt", "completion", "text"):
            column = rows[name]
            if column.null_count == rows.num_rows:
                continue
            least = 1 if name == "prompt" else max(self.min_characters, 1)
            stripped = pc.utf8_length(pc.utf8_trim(column, characters=_WHITESPACE))
            fine &= pc.greater_equal(stripped, least).to_numpy()
            total += pc.utf8_length(column).to_numpy()
        return fine & (total <= self.max_characters)

    def _rejection(self, batch: Parsed, place: int) -> Rejection:
        row = batch.rows.slice(place, 1).to_pylist()[0]
        problem = self._problem(row)
        assert problem
        return unfit(row["line"], problem, batch.fields_of(place), row["source"])

    def _problem(self, row: dict[str, str | None]) -> Unusable | None:
        if row["prompt"] is not None:
            sizes = {"prompt": len(row["prompt"]), "completion": len(row["completion"] or "")}
            if not row["prompt"].strip():
                return Unusable(Reason.TOO_SHORT, self.columns.prompt)
            learned, column = row["completion"] or "", self.columns.completion
        elif row["text"] is not None:
            learned, column = row["text"], self.columns.text
            sizes = {"text": len(learned)}
        else:
            chat = json.loads(row["messages"] or "[]")
            if not any(message["role"] == "assistant" and message["content"].strip() for message in chat):
                return Unusable(Reason.NO_ANSWER, self.columns.messages)  # cleaning may have left nothing of it
            contents = [message["content"] for message in chat]
            learned, column = "\n".join(contents), self.columns.messages
            sizes = {"messages": sum(map(len, contents))}
        if len(learned.strip()) < max(self.min_characters, 1):
            return Unusable(Reason.TOO_SHORT, column)
        if sum(sizes.values()) > self.max_characters:
            longest = max(sizes, key=lambda name: sizes[name])
            return Unusable(Reason.TOO_LONG, getattr(self.columns, longest))
        return None


@dataclass(frozen=True)
class ExactDedup:
    """Keeps the first of rows with the same content, and says of the others where that one stands."""

    name = "dedup_exact"

    def begin(self) -> Callable[[pa.Table], Outcome]:
        return _FirstPlaces().apply


class _FirstPlaces:
    """For each content the number of the first row that has it, and where that stands: some 40 bytes a row."""

    def __init__(self) -> None:
        self._first = FirstRows()
        self._lines, self._sources = array("q"), array("i")  # of all rows, by their numbers
        self._names: dict[str | None, int] = {}

    def apply(self, rows: pa.Table) -> Outcome:
        start = len(self._lines)
        self._lines.frombytes(rows["line"].to_numpy().tobytes())
        self._sources.extend(self._names.setdefault(name, len(self._names)) for name in _values(rows, "source"))
        first = self._first.of(digest_halves(rows))
        keep = first == np.arange(start, start + rows.num_rows)
        if keep.all():
            return Outcome(rows)
        places, names = np.flatnonzero(~keep).tolist(), list(self._names)
        rejections = duplicates(rows, places, [self._place(first[place], names) for place in places])
        return Outcome(rows.filter(pa.array(keep)), rejections)

    def _place(self, number: int, names: Sequence[str | None]) -> str:
        source, line = names[self._sources[number]], self._lines[number]
        return f"line {line}" if source is None else f"{source}, line {line}"


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
        prefix = f"{self.split.seed}\0".encode()
        by_group, by_content = prefix + b"group\0", prefix + b"content\0"
        groups = _values(rows, "group")
        points = {group: _point(by_group + group.encode()) for group in set(groups) if group is not None}
        drawn = b"".join(
            [
                _point(by_content + key) if group is None else points[group]
                for group, key in zip(groups, keys_of(rows), strict=True)
            ]
        )
        shares = np.frombuffer(drawn, ">u4") / 2**32
        places = np.searchsorted(self._bounds(), shares, side="right")
        names = pa.array(SPLITS, pa.string()).take(pa.array([*self._used()], pa.int8())).take(pa.array(places))
        return Outcome(rows.append_column(WITH_SPLIT.field("split"), names))

    def _used(self) -> range:
        """Up to the last split that has a share: it takes what rounding leaves."""
        return range(1 + max(place for place in range(3) if getattr(self.split, SPLITS[place]) > 0))

    def _bounds(self) -> list[float]:
        """Where each split ends and the next one begins."""
        bounds, bound = [], 0.0
        for place in self._used()[:-1]:
            bound += getattr(self.split, SPLITS[place])
            bounds.append(bound)
        return bounds


def numbered(rows: pa.Table, first: int) -> pa.Table:
    """The rows with their numbers in the spool, which remain theirs when others are left out."""
    return rows.append_column("number", pa.array(np.arange(first, first + rows.num_rows)))


def _point(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()[:4]


def _values(rows: pa.Table, name: str) -> list[str | None]:
    column = rows[name]
    values: list[str | None] = [None] * len(column) if column.null_count == len(column) else column.to_pylist()
    return values


def duplicates(rows: pa.Table, places: Sequence[int], kept: Sequence[str]) -> list[Rejection]:
    """The rows at `places`, each of which says the same as the one that stands where `kept` says."""
    chosen = rows.select([*CONTENT, "line", "source"]).take(pa.array(places, pa.int64())).to_pylist()
    return [_duplicate(row, where) for row, where in zip(chosen, kept, strict=True)]


def _duplicate(row: dict[str, Any], kept: str) -> Rejection:
    shown = next((row[name] for name in CONTENT if row[name] is not None), "")
    seen = excerpt(f"same as {kept}: {shown}")
    return Rejection(row["line"], ExactDedup.name, Reason.DUPLICATE, seen, None, row["source"])
