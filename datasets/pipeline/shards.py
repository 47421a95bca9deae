"""Writes a version: zstd Parquet for each split and for the rejections, and manifest.json last.

The same rows give the same bytes, on every attempt. A folder without a manifest is not a version.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from common.child import sync_folder, write_whole
from datasets.pipeline.rows import REJECTIONS, ROWS, Rejection, rejection_table
from datasets.pipeline.steps import SPLITS

ROW_GROUP_BYTES = 16 << 20
ROW_GROUP_REJECTIONS = 20_000
SAMPLES = "samples.json"


class Shard:
    """One Parquet file, written in row groups whose bounds depend on the rows alone."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._path, self._schema = path, schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
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

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():  # of an attempt that was killed
            left.unlink()
        self.folder = folder
        self._splits = {name: Shard(self._draft(name), ROWS) for name in SPLITS}
        self._rejections = Shard(self._draft("rejections"), REJECTIONS)
        self._waiting: list[Rejection] = []
        self.rejected = 0

    def add(self, rows: pa.Table) -> None:
        stored = rows.select(ROWS.names)
        for name, shard in self._splits.items():
            chosen = stored.filter(pc.equal(rows["split"], name))
            if chosen.num_rows:
                shard.add(chosen)

    def reject(self, rejections: list[Rejection]) -> None:
        self.rejected += len(rejections)
        self._waiting += rejections
        if len(self._waiting) >= ROW_GROUP_REJECTIONS:
            self._flush_rejections()

    def close(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """Finish all files but the manifest: (their entries in it, rows of each split).

        Train is never empty while there are rows: where the hash left it so, the larger of the other two becomes train.
        """
        self._flush_rejections()
        for shard in (*self._splits.values(), self._rejections):
            shard.close()
        rows = {name: shard.rows for name, shard in self._splits.items()}
        drafts = {name: self._draft(name) for name in SPLITS}
        if not rows["train"]:
            promoted = max(("validation", "test"), key=lambda name: rows[name])
            rows["train"], rows[promoted] = rows[promoted], rows["train"]
            drafts["train"], drafts[promoted] = drafts[promoted], drafts["train"]
        files = [{**self._publish(drafts[name], name), "rows": rows[name], "split": name.upper()} for name in SPLITS]
        entry = self._publish(self._draft("rejections"), "rejections")
        files.append({**entry, "rows": self.rejected, "split": "rejections"})
        sync_folder(self.folder)
        return files, {name.upper(): rows[name] for name in SPLITS}

    def write_samples(self, samples: dict[str, Any], count: int) -> dict[str, Any]:
        """Write samples.json, which is no rows: its entry in the manifest."""
        content = json.dumps(samples, ensure_ascii=False, allow_nan=False, indent=1, sort_keys=True).encode()
        write_whole(self.folder / SAMPLES, content)
        sha256 = hashlib.sha256(content).hexdigest()
        return {"name": SAMPLES, "sha256": sha256, "size_bytes": len(content), "rows": count, "split": "samples"}

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
        final = self.folder / f"{name}-00000.parquet"
        draft.rename(final)
        with final.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": final.name, "sha256": sha256, "size_bytes": final.stat().st_size}
