"""A dataset whose one version is there, and what it takes to add to it, or to make all of it anew."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.pipeline.contender import AnonymousMemory
from common.child import Attempt
from datasets.pipeline.memory import keep_freed_memory
from datasets.pipeline.run import Run

KEY = "00" * 32


class Dataset:
    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        keep_freed_memory()  # as the child itself does
        self._expected = json.loads((self._folder / "expected.json").read_text())

    def begin(self) -> None:
        """Make the version that rows are added to, and add them once: so both have been warmed up."""
        self._run("old", "first", [])
        self.append()

    def append(self) -> dict[str, Any]:
        """What a worker does: has the parent's files under other names, and runs the pipeline over the new rows."""
        first, parent = self._folder / "first" / "version", self._folder / "parent"
        parent.mkdir()
        begun = time.process_time()
        for path in first.iterdir():
            os.link(path, parent / path.name)
        linked = time.process_time() - begun
        measured = self._run("new", "appended", [{"number": 1, "prefix": "first", "folder": str(parent)}], linked)
        index = sum(path.stat().st_size for path in first.glob("index-*"))
        rows = json.loads((first / "manifest.json").read_text())["rows_in"]
        shutil.rmtree(parent)
        return {**measured, "index_bytes_a_row": index / rows}

    def scratch(self) -> dict[str, Any]:
        return self._run("both", "anew", [])

    def _run(self, source: str, name: str, parent: list[dict[str, Any]], before_s: float = 0.0) -> dict[str, Any]:
        folder = self._folder / name
        folder.mkdir()
        orders = {
            "source": str(self._folder / f"{source}.jsonl"),
            "file_name": "rows.jsonl",
            "recipe": {},
            "pii_key": KEY,
            "parent": parent,
        }
        (folder / "run.json").write_text(json.dumps(orders))
        with AnonymousMemory() as memory:
            begun = time.process_time()
            result = Run(Attempt(folder)).process()
            took = time.process_time() - begun + before_s
        measured = {
            "cpu_s": took,
            "anonymous_bytes": memory.peak_bytes,
            "digest": _digest_of_files(folder / "version"),
            "rows_digest": self._digest_of_rows(folder / "version"),
            "left_out": result.get("added", result)["rejected"],
            "expected": self._expected,
            "steps": {step["name"]: step["seconds"] for step in result["steps"]},
        }
        if name != "first":
            shutil.rmtree(folder)
        return measured

    def _digest_of_rows(self, version: Path) -> str:
        """Of the digests of all rows and their splits, in whatever order they stand."""
        found = []
        for entry in json.loads((version / "manifest.json").read_text())["files"]:
            if entry["split"] != "rejections":
                folder = self._folder / "parent" if "key" in entry else version
                digests = pq.read_table(folder / entry["name"], columns=["digest"])["digest"].to_pylist()
                found += [entry["split"].encode() + digest for digest in digests]
        return hashlib.sha256(b"".join(sorted(found))).hexdigest()


def _digest_of_files(version: Path) -> str:
    files = sorted(version.iterdir())
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
