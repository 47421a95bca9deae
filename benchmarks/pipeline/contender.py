"""The pipeline's child, whose run is measured: CPU time, anonymous memory, and the digests of what it wrote."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from common.child import Attempt
from datasets.pipeline.memory import keep_freed_memory
from datasets.pipeline.run import Run

SAMPLE_EVERY_S = 0.01


class Pipeline:
    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._runs = 0
        keep_freed_memory()  # as the child itself does

    def measure(self, source: str) -> dict[str, Any]:
        """One run of the default recipe over a file: CPU seconds of all threads, rows, and what became of them."""
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        folder.mkdir()
        (folder / "run.json").write_text(
            json.dumps({"source": source, "file_name": "rows.jsonl", "recipe": {}, "pii_key": "00" * 32})
        )
        with AnonymousMemory() as memory:
            begun = time.process_time()
            result = Run(Attempt(folder)).process()
            took = time.process_time() - begun
        files = sorted((folder / "version").iterdir())
        digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
        shutil.rmtree(folder)
        return {
            "cpu_s": took,
            "rows_kept": result["rows_kept"],
            "rejected": result["rejected"],
            "digest": digest,
            "anonymous_bytes": memory.peak_bytes,
            "steps": {step["name"]: step["seconds"] for step in result["steps"]},
        }


class AnonymousMemory:
    """The most that this process had beyond mapped files; those are the kernel's to drop."""

    def __enter__(self) -> AnonymousMemory:
        self.peak_bytes = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(SAMPLE_EVERY_S):
            lines = Path("/proc/self/status").read_text().splitlines()
            now = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
            self.peak_bytes = max(self.peak_bytes, now)
