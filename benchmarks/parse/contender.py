"""Parsers of an upload, each in a process of its own: what they keep, what they report, and the CPU time they take."""

from __future__ import annotations

import csv
import json
import resource
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.parse.uploads import digest_of
from datasets.pipeline.memory import keep_freed_memory
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.csv_file import read_csv
from datasets.pipeline.reading.jsonl import read_jsonl
from datasets.pipeline.reading.parquet_file import read_parquet
from datasets.pipeline.reading.upload import LARGE_FROM_BYTES

Found = tuple[Any, list[int]]  # (the rows in a form of one's own, numbers of lines that were refused)


class Parser:
    def __init__(self, name: str, *files: str) -> None:
        if name == "platform":
            keep_freed_memory()  # as a run does
        self._files = {path.suffix[1:]: path for path in map(Path, files)}
        self._read: dict[str, Callable[[Path], Found]] = _PARSERS[name]
        self._pairs: Callable[[Any], Iterable[tuple[str, str]]] = _PAIRS[name]

    def measure(self, kind: str) -> float:
        """Seconds of CPU time, of all threads, and of a child that has ended; what was parsed is held until then."""
        begun = _cpu_s()
        found = self._read[kind](self._files[kind])
        took = _cpu_s() - begun
        del found
        return took

    def answer(self, kind: str) -> dict[str, Any]:
        rows, refused = self._read[kind](self._files[kind])
        return {"digest": digest_of(self._pairs(rows)), "refused": refused}


def _cpu_s() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _ours(chunks: Iterable[Any]) -> Found:
    """As a run does it: the first chunk tells how records are written."""
    columns = Columns(prompt="prompt", completion="completion")
    tables, refused = [], []
    for number, chunk in enumerate(chunks):
        if number == 0:
            chunk.sample(10_000)
        parsed = chunk.parsed(columns)
        tables.append(parsed.rows)
        refused += [one.line for one in (*parsed.rejections, *parsed.unfit)]
    return tables, sorted(refused)


def _json_loop(path: Path) -> Found:
    rows, refused = [], []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                rows.append(json.loads(line))
            except ValueError:
                refused.append(number)
    return rows, refused


def _csv_loop(path: Path) -> Found:
    """The csv module is told nothing of encodings, and finds what it can."""
    rows, refused = [], []
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        line = reader.line_num + 1
        for record in reader:
            if len(record) == len(header):
                rows.append(dict(zip(header, record, strict=True)))
            else:
                refused.append(line)
            line = reader.line_num + 1
    return rows, refused


def _parquet_loop(path: Path) -> Found:
    rows, refused, number = [], [], 0
    for batch in import_module("pyarrow.parquet").ParquetFile(path).iter_batches():
        for row in batch.to_pylist():
            number += 1
            if all(isinstance(value, str) and "\0" not in value for value in row.values()):
                rows.append(row)
            else:
                refused.append(number)
    return rows, refused


def _pandas_json(path: Path) -> Found:
    """It takes no broken lines, and is given the file without them."""
    return import_module("pandas").read_json(path.with_suffix(".good"), lines=True), []


def _pandas_csv(path: Path) -> Found:
    return import_module("pandas").read_csv(path, on_bad_lines="skip", encoding_errors="replace"), []


def _pandas_parquet(path: Path) -> Found:
    return import_module("pandas").read_parquet(path), []


_PARSERS: dict[str, dict[str, Callable[[Path], Found]]] = {
    "platform": {
        "jsonl": lambda path: _ours(read_jsonl(path, is_large=path.stat().st_size >= LARGE_FROM_BYTES)),
        "csv": lambda path: _ours(read_csv(path, is_large=path.stat().st_size >= LARGE_FROM_BYTES)),
        "parquet": lambda path: _ours(read_parquet(path)),
    },
    "loop": {"jsonl": _json_loop, "csv": _csv_loop, "parquet": _parquet_loop},
    "pandas": {"jsonl": _pandas_json, "csv": _pandas_csv, "parquet": _pandas_parquet},
}
_PAIRS: dict[str, Callable[[Any], Iterable[tuple[str, str]]]] = {
    "platform": lambda tables: (
        (prompt, completion)
        for table in tables
        for prompt, completion in zip(table["prompt"].to_pylist(), table["completion"].to_pylist(), strict=True)
    ),
    "loop": lambda rows: (
        (str(row.get("prompt")), str(row.get("completion"))) for row in rows if isinstance(row, dict)
    ),
    "pandas": lambda frame: zip(frame["prompt"], frame["completion"], strict=True),
}
