"""What a version keeps so that rows can be added to it for what those cost: a digest of each content, and a sketch of each row.

The files are arrays that are mapped, not read. They tell as much of rows as the upload does, and like that one leave storage
for a worker alone:

    index-contents.npy  each content that passed the first pass, ordered by its digest, and where it stood
    index-sources.json  the names that `source` in it counts
    index-keys.npy      band keys, (bands, rows), of the rows that are stored, or were until secrets were looked for
    index-bits.npy      their bits, (rows, words)
    index-places.npy    their sizes, and where they are stored
    index-pages.npy     where the pages of the shards lie
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from datasets.pipeline.near.index import NearIndex
from datasets.pipeline.near.shingles import Ints
from datasets.pipeline.steps import SPLITS
from datasets.pipeline.stored.digests import digest_halves
from datasets.pipeline.stored.pages import PAGES, pages_of
from datasets.pipeline.stored.shards import shard_name

CONTENTS = np.dtype([("high", "<u8"), ("low", "<u8"), ("line", "<i8"), ("source", "<i4")])
PLACES = np.dtype([("size", "<u4"), ("split", "i1"), ("row", "<i8")])
NOWHERE = -1
"""Of a row that is not stored, in place of its split, and of a source that there is not."""


class IndexWriter:
    """Takes what both steps of deduplication know, and where rows went. Rows are known by their numbers in the spool."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._folder = folder
        self._contents: list[npt.NDArray] = []
        self._sources: dict[str, int] = {}
        self._places = np.zeros(rows, PLACES)
        self._places["split"] = NOWHERE
        self._sketched: Ints | None = None

    def add_contents(self, rows: pa.Table) -> None:
        """Of rows as the first pass left them."""
        found = np.zeros(rows.num_rows, CONTENTS)
        halves = digest_halves(rows)
        found["high"], found["low"], found["line"] = halves[:, 0], halves[:, 1], rows["line"].to_numpy()
        found["source"] = NOWHERE
        if rows["source"].null_count < rows.num_rows:
            names = rows["source"].to_pylist()
            found["source"] = [self._sources.setdefault(name, len(self._sources)) for name in names]
        self._contents.append(found)

    def add_sketches(self, index: NearIndex, left_out: Ints) -> None:
        """Of all rows but those that near-duplicates have left out."""
        self._sketched = np.setdiff1d(index.comparable(), left_out, assume_unique=True)
        keys = bits = None
        start = 0
        for each in index.sketched(self._sketched):
            if keys is None or bits is None:
                keys = self._mapped("keys", "<u4", (len(each.keys), len(self._sketched)))
                bits = self._mapped("bits", "<u8", (len(self._sketched), each.bits.shape[1]))
            end = start + len(each.numbers)
            keys[:, start:end], bits[start:end] = each.keys, each.bits
            self._places["size"][each.numbers] = each.sizes
            start = end

    def place(self, numbers: Ints, splits: npt.NDArray, rows: Ints) -> None:
        """Rows are stored: row rows[i] of the shard of splits[i] (its place in SPLITS)."""
        self._places["split"][numbers], self._places["row"][numbers] = splits, rows

    def close(self) -> list[Path]:
        """Write what is not written yet, once the shards are; the files that there are."""
        if self._contents:
            contents = np.concatenate(self._contents)
            self._contents.clear()  # there are two copies at a time, and not three
            np.save(self._folder / "index-contents.npy", contents[np.argsort(contents["high"], kind="stable")])
            (self._folder / "index-sources.json").write_text(json.dumps(list(self._sources), ensure_ascii=False))
        if self._sketched is not None and len(self._sketched):
            np.save(self._folder / "index-places.npy", self._places[self._sketched])
            shards = [pages_of(self._folder / shard_name(split), number) for number, split in enumerate(SPLITS)]
            np.save(self._folder / "index-pages.npy", np.concatenate(shards))
        return sorted(self._folder.glob("index-*"))

    def _mapped(self, name: str, kind: str, shape: tuple[int, ...]) -> npt.NDArray:
        return np.lib.format.open_memmap(self._folder / f"index-{name}.npy", "w+", kind, shape)  # type: ignore[no-untyped-call,no-any-return]


class Index:
    """The same files, of a version that is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.contents = self._array("contents", np.zeros(0, CONTENTS))
        self.keys = self._array("keys", np.zeros((0, 0), np.uint32))
        self.bits = self._array("bits", np.zeros((0, 1), np.uint64))
        self.places = self._array("places", np.zeros(0, PLACES))
        self.pages = self._array("pages", np.zeros(0, PAGES))
        self._high = np.ascontiguousarray(self.contents["high"])

    def find(self, halves: npt.NDArray) -> Ints:
        """For each digest its position in `contents`, or NOWHERE."""
        first = np.searchsorted(self._high, halves[:, 0], "left")
        last = np.searchsorted(self._high, halves[:, 0], "right")
        found = np.full(len(halves), NOWHERE, np.int64)
        for further in range(int((last - first).max(initial=0))):  # once, unless two digests share half of their bits
            there = np.flatnonzero(first + further < last)
            same = self.contents["low"][first[there] + further] == halves[there, 1]
            found[there[same]] = first[there[same]] + further
        return found

    def place_of(self, position: int) -> tuple[str | None, int]:
        """Source and line of a content."""
        content = self.contents[position]
        source = None if content["source"] == NOWHERE else self._sources[content["source"]]
        return source, int(content["line"])

    @cached_property
    def _sources(self) -> list[str]:
        sources: list[str] = json.loads((self._folder / "index-sources.json").read_text())
        return sources

    def _array(self, name: str, empty: npt.NDArray) -> npt.NDArray:
        path = self._folder / f"index-{name}.npy"
        return (
            np.asarray(np.load(path, mmap_mode="r")) if path.exists() else empty
        )  # whose slices cost less than a memmap's
