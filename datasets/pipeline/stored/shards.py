"""Writes a version: zstd Parquet for each split and for the rejections, and manifest.json last.

The same upload gives the same bytes, on every attempt. A folder without a manifest is not a version.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.child import sync_folder, write_whole
from datasets.pipeline.rows import CONTENT, REJECTIONS, ROWS, Rejection, rejection_table
from datasets.pipeline.scrubbing import Scrub
from datasets.pipeline.steps import SPLITS
from datasets.pipeline.stored.digests import DIGEST_BYTES, digests

# A row's lineage is stored with it: the sha256 of its upload, its place there, and what changed it. Its digest is that of its
# content as it stands here.
STORED = ROWS.append(pa.field("upload", pa.string(), nullable=False)).append(
    pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False)
)
Places = tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]

ROW_GROUP_BYTES = 512 << 10
"""Of rows before they are packed."""
PAGE_BYTES, ROWS_AT_A_TIME = 32 << 10, 32
"""An append reads pages of single rows (pages.py). Their size is looked at after so many rows."""
LEVEL = 3
"""Of zstd: with 1, pages so small would take a tenth more room."""
PLAIN = (*CONTENT, "source", "line", "digest")
"""In no dictionary's encoding: hardly a value comes again, and a page is whole by itself."""
WITHOUT_STATISTICS = CONTENT
"""The least and the greatest text of each page took 5 % of a file."""
ROW_GROUP_REJECTIONS = 20_000
SAMPLES = "samples.json"


class Shard:
    """One Parquet file. Its row groups end where a batch does: the same rows in the same batches give the same bytes."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._path, self._schema = path, schema
        self._writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            compression_level=LEVEL,
            data_page_size=PAGE_BYTES,
            write_batch_size=ROWS_AT_A_TIME,
            use_dictionary=[name for name in schema.names if name not in PLAIN],
            write_statistics=[name for name in schema.names if name not in WITHOUT_STATISTICS],
        )
        self._waiting: list[pa.Table] = []
        self._waiting_bytes = 0

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        self._waiting.append(table)
        self._waiting_bytes += table.nbytes
        if self._waiting_bytes >= ROW_GROUP_BYTES:
            self.end_row_group()

    def close(self) -> None:
        self.end_row_group()
        self._writer.close()
        with self._path.open("rb") as file:
            os.fsync(file.fileno())

    def end_row_group(self) -> None:
        table = pa.concat_tables([self._schema.empty_table(), *self._waiting])
        if table.num_rows:
            self._writer.write_table(table)
        self._waiting, self._waiting_bytes = [], 0


class VersionWriter:
    """The files of a version, under names that become theirs when all rows are known."""

    def __init__(self, folder: Path, upload_sha256: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():  # of an attempt that was killed
            left.unlink()
        self.folder = folder
        self._splits = {name: Shard(self._draft(name), STORED) for name in SPLITS}
        self._rejections = Shard(self._draft("rejections"), REJECTIONS)
        self._upload = upload_sha256
        self._waiting: list[Rejection] = []
        self.rejected = 0

    def add(self, rows: pa.Table) -> Places:
        """Where they are stored: the split that each one drew, by its place in SPLITS, and its place in that one's shard."""
        stored = self._with_lineage(rows)
        drawn, places = np.zeros(rows.num_rows, np.int8), np.zeros(rows.num_rows, np.int64)
        for number, (name, shard) in enumerate(self._splits.items()):
            mine = pc.equal(rows["split"], name)
            chosen = stored.filter(mine)
            if chosen.num_rows:
                here = mine.to_numpy()
                drawn[here], places[here] = number, np.arange(shard.rows, shard.rows + chosen.num_rows)
                shard.add(chosen)
        return drawn, places

    def _with_lineage(self, rows: pa.Table) -> pa.Table:
        columns = [
            *(rows[name] for name in ROWS.names),
            pa.repeat(pa.scalar(self._upload), rows.num_rows),
            _digests(rows),
        ]
        return pa.Table.from_arrays(columns, schema=STORED)

    def reject(self, rejections: list[Rejection]) -> None:
        self.rejected += len(rejections)
        self._waiting += rejections
        if len(self._waiting) >= ROW_GROUP_REJECTIONS:
            self._flush_rejections()

    def close(self, before: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """Finish all files but the manifest, and give their entries in it, behind those of files that were there before.

        Train is never empty while there are rows: where the hash left it so, the larger of the other two becomes train. What
        the hash said remains in `drawn`: once rows come that draw train, the others are what they drew.
        """
        self._flush_rejections()
        for shard in (*self._splits.values(), self._rejections):
            shard.close()
        rows = Counter({name: shard.rows for name, shard in self._splits.items()})
        for entry in before:
            if "drawn" in entry:
                rows[entry["drawn"].lower()] += entry["rows"]
        becomes = {name: name for name in SPLITS}
        if not rows["train"]:
            promoted = max(("validation", "test"), key=lambda name: rows[name])
            becomes |= {"train": promoted, promoted: "train"}
        files = [
            {**entry, "split": becomes[entry["drawn"].lower()].upper()} if "drawn" in entry else entry
            for entry in before
        ]
        drawn = {becomes[name]: name for name in SPLITS}
        for name in SPLITS:
            entry = self._publish(self._draft(drawn[name]), name)
            shard = self._splits[drawn[name]]
            entry |= {"upload": self._upload, "rows": shard.rows}
            files.append({**entry, "split": name.upper(), "drawn": drawn[name].upper()})
        entry = self._publish(self._draft("rejections"), "rejections")
        files.append({**entry, "upload": self._upload, "rows": self.rejected, "split": "rejections"})
        sync_folder(self.folder)
        return files

    def write_samples(self, samples: dict[str, Any]) -> dict[str, Any]:
        """Write samples.json, which holds no rows: its entry in the manifest."""
        content = json.dumps(samples, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True).encode()
        write_whole(self.folder / SAMPLES, content)
        sha256 = hashlib.sha256(content).hexdigest()
        return {"name": SAMPLES, "sha256": sha256, "size_bytes": len(content)}

    def publish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest: from now on the folder is a version."""
        content = json.dumps(manifest, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True)
        write_whole(self.folder / "manifest.json", content.encode())

    def _flush_rejections(self) -> None:
        self._rejections.add(rejection_table(self._waiting))
        self._rejections.end_row_group()
        self._waiting = []

    def _draft(self, name: str) -> Path:
        return self.folder / f".{name}.draft"

    def _publish(self, draft: Path, name: str) -> dict[str, Any]:
        final = self.folder / shard_name(name)
        draft.rename(final)
        return described(final)


def shard_name(split: str) -> str:
    return f"{split}-00000.parquet"


def rows_of_splits(files: Sequence[dict[str, Any]]) -> dict[str, int]:
    rows = {name.upper(): 0 for name in SPLITS}
    for entry in files:
        if entry["split"] in rows:
            rows[entry["split"]] += entry["rows"]
    return rows


def described(file: Path) -> dict[str, Any]:
    """A file's entry in a manifest."""
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    return {"name": file.name, "sha256": sha256, "size_bytes": file.stat().st_size}


def _digests(rows: pa.Table) -> pa.ChunkedArray:
    """Of rows as they are: those that were masked after theirs was taken get another one."""
    masked = pc.fill_null(pc.match_substring(rows["changed_by"], Scrub.name), False)
    if not pc.any(masked).as_py():
        return rows["digest"]
    return pc.replace_with_mask(rows["digest"].combine_chunks(), masked.combine_chunks(), digests(rows.filter(masked)))
