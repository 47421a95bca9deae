"""The whole pipeline over one upload, batch by batch: memory is bounded by a batch and the index of the dedup."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from common.child import Attempt, ChildError
from datasets.pipeline.columns import Columns, resolve_columns
from datasets.pipeline.csv_file import read_csv
from datasets.pipeline.fingerprint import PIPELINE_VERSION, fingerprint
from datasets.pipeline.json_document import read_json
from datasets.pipeline.jsonl import read_jsonl
from datasets.pipeline.progress import Progress, StepReport, sorted_counts
from datasets.pipeline.python_source import read_python
from datasets.pipeline.recipe import ColumnMapping, Format, Recipe
from datasets.pipeline.recognise import recognise
from datasets.pipeline.rows import Chunk, Outcome, Parsed, Rejection, excerpt
from datasets.pipeline.shards import VersionWriter
from datasets.pipeline.steps import AssignSplit, ExactDedup, Validate

SAMPLED_ROWS = 10_000


class Run:
    """One upload on its way to a version, in `attempt.folder / "version"`."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.recipe = Recipe.from_json(attempt.orders["recipe"])
        self.source = Path(attempt.orders["source"])
        self.file_name = str(attempt.orders["file_name"])
        self.skipped: dict[str, int] = {}
        self.first_rejections: dict[str, Rejection] = {}
        self.reports = {name: StepReport(name) for name in ("parse", "validate", "dedup_exact", "split", "store")}
        self.progress = Progress(attempt.events, list(self.reports.values()))

    def process(self) -> dict[str, Any]:
        """Make the version, and give the result. Raises ChildError where the upload makes none."""
        try:
            return self._process()
        except ChildError:
            for report in self.reports.values():
                if report.status == "RUNNING":
                    self.progress.end(report, "FAILED")
            raise

    def _process(self) -> dict[str, Any]:
        self.progress.start(self.reports["parse"])
        with self._timed("parse"):
            source_format = self._recognise()
            chunks = self._chunks(source_format)
            columns, read = self._columns(source_format, chunks)
        writer = VersionWriter(self.attempt.folder / "version")
        self._through_steps(columns, chain(read, chunks), writer)
        rows_kept = self.reports["store"].rows_kept
        if rows_kept == 0:
            raise self._no_usable_rows()
        with self._timed("store"):
            files, splits = writer.close()
        self._end_steps()
        self._tell_about(splits)
        outcome = {
            "format": source_format.value,
            "columns": columns.to_json(),
            "rows_in": self.reports["parse"].rows_in,
            "rows_kept": rows_kept,
            "rejected": writer.rejected,
            "skipped": self.skipped,
            "splits": splits,
        }
        with self.source.open("rb") as file:
            source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        resolved = {**self.recipe.to_json(), "format": source_format.value, "columns": columns.to_json()}
        writer.publish(
            {
                **{name: outcome[name] for name in ("rows_in", "rows_kept", "rejected", "skipped", "splits")},
                "pipeline_version": PIPELINE_VERSION,
                "source_sha256": source_sha256,
                "fingerprint": fingerprint(source_sha256, self.recipe),
                "recipe": resolved,
                "files": files,
                "steps": [report.to_json() for report in self.reports.values()],
            }
        )
        steps = [{**report.to_json(), "seconds": round(report.seconds, 3)} for report in self.reports.values()]
        return {**outcome, "size_bytes": sum(file["size_bytes"] for file in files), "steps": steps}

    def _recognise(self) -> Format:
        mapped = tuple(name for name in self.recipe.to_json()["columns"].values() if name)
        found = recognise(self.source, self.file_name, self.recipe.format, mapped)
        self.attempt.events.log(f"Reading {excerpt(self.file_name, 100)} as {found}.")
        return found

    def _chunks(self, source_format: Format) -> Iterator[Chunk]:
        mapped = tuple(name for name in self.recipe.to_json()["columns"].values() if name)
        if source_format is Format.JSONL:
            return read_jsonl(self.source)
        if source_format is Format.JSON:
            return read_json(self.source)
        if source_format is Format.CSV:
            return read_csv(self.source, mapped)
        return read_python(self.source, self.file_name, self.skipped)

    def _columns(self, source_format: Format, chunks: Iterator[Chunk]) -> tuple[Columns, list[Chunk]]:
        """The columns, by the first chunk that has records, and what was read until then."""
        read: list[Chunk] = []
        if source_format is Format.PYTHON:
            if self.recipe.columns != ColumnMapping():
                raise ChildError("COLUMN_UNKNOWN", "Python source has no columns to map. Leave the columns out.")
            return Columns(prompt="prompt", completion="completion", group="group"), read
        for chunk in chunks:
            sample = chunk.sample(SAMPLED_ROWS)
            if sample:
                columns = resolve_columns(self.recipe.columns, sample)
                chosen = ", ".join(f"{role} from '{excerpt(name, 60)}'" for role, name in columns.to_json().items())
                self.attempt.events.log(f"Columns: {chosen}.")
                return columns, [*read, chunk]
            read.append(_Unreadable(chunk))
        return Columns(), read

    def _through_steps(self, columns: Columns, chunks: Iterator[Chunk], writer: VersionWriter) -> None:
        recipe = self.recipe
        validate = Validate(columns, recipe.min_characters, recipe.max_characters).begin()
        dedup = ExactDedup().begin() if recipe.exact_dedup else None
        assign = AssignSplit(recipe.split).begin()
        for name, report in self.reports.items():
            if name != "parse" and (name != "dedup_exact" or dedup):
                self.progress.start(report)
        for batch, progress in self._parsed(columns, chunks):
            rejections = list(batch.rejections)
            records = batch.rows.num_rows + len(batch.unfit)
            if records:
                rows = self._step("validate", validate, batch, records, rejections)
                rows = self._step("dedup_exact", dedup or Outcome, rows, rows.num_rows, rejections)
                rows = self._step("split", assign, rows, rows.num_rows, rejections)
                with self._timed("store"):
                    writer.add(rows)
                    self.reports["store"].count(rows.num_rows, rows.num_rows, [])
            with self._timed("store"):
                writer.reject(self._in_order(rejections))
            self.progress.advance(progress)

    def _parsed(self, columns: Columns, chunks: Iterator[Chunk]) -> Iterator[tuple[Parsed, float]]:
        while True:
            self.attempt.check_stop()
            with self._timed("parse"):
                chunk = next(chunks, None)
                if chunk is None:
                    return
                batch = chunk.parsed(columns)
            kept = batch.rows.num_rows + len(batch.unfit)
            self.reports["parse"].count(kept + len(batch.rejections), kept, batch.rejections)
            yield batch, chunk.progress

    def _step(
        self, name: str, apply: Callable[[Any], Outcome], batch: Any, rows_in: int, rejections: list[Rejection]
    ) -> pa.Table:
        with self._timed(name):
            outcome = apply(batch)
        self.reports[name].count(rows_in, outcome.kept.num_rows, outcome.rejections)
        rejections += outcome.rejections
        return outcome.kept

    def _in_order(self, rejections: list[Rejection]) -> list[Rejection]:
        """In the order of the upload, whichever step it was."""
        rejections.sort(key=lambda rejection: (rejection.source or "", rejection.line))
        for rejection in rejections:
            self.first_rejections.setdefault(rejection.reason, rejection)
        return rejections

    def _end_steps(self) -> None:
        for name, report in self.reports.items():
            self.progress.end(report, "SKIPPED" if name == "dedup_exact" and not self.recipe.exact_dedup else "DONE")

    def _tell_about(self, splits: dict[str, int]) -> None:
        for what, count in self.skipped.items():
            if count:
                self.attempt.events.log(f"{count:,} {_SKIPPED_WORDS[what]}.")
        missing = [
            name for name in ("VALIDATION", "TEST") if not splits[name] and getattr(self.recipe.split, name.lower()) > 0
        ]
        if missing:
            text = f"No row fell into {' and '.join(missing)}: there are too few rows, or too few groups of them."
            self.attempt.events.log(text, level="WARNING")

    def _no_usable_rows(self) -> ChildError:
        total = self.reports["parse"].rows_in
        counts: Counter[str] = sum((report.reasons for report in self.reports.values()), Counter())
        if not total:
            nothing = "no function with a docstring and a body" if "FUNCTION_TOO_SMALL" in self.skipped else "no rows"
            return ChildError("NO_USABLE_ROWS", f"The file has {nothing}. Upload one that has some.")
        reasons = [f"{count:,} x {key} ({self._example(key)})" for key, count in sorted_counts(counts)[:3]]
        return ChildError("NO_USABLE_ROWS", f"None of the {total:,} rows can be used: {'; '.join(reasons)}.")

    def _example(self, reason: str) -> str:
        first = self.first_rejections[reason]
        place = f"{excerpt(first.source, 60)}, line {first.line}" if first.source else f"line {first.line}"
        return f"first in {place}" + (f", field {first.field}" if first.field else "")

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.reports[name].seconds += time.perf_counter() - begun


class _Unreadable:
    """A chunk without a record that can be read: parsed at once, so that its bytes need not be kept."""

    def __init__(self, chunk: Chunk) -> None:
        self.progress = chunk.progress
        self._parsed = chunk.parsed(Columns())

    def sample(self, _: int) -> list[Mapping[str, Any]]:
        return []

    def parsed(self, _: Columns) -> Parsed:
        return self._parsed


_SKIPPED_WORDS = {
    "NOT_SOURCE": "members of the archive are no Python source and were skipped",
    "FUNCTION_TOO_SMALL": "functions have no docstring and a single statement, or nothing in them, and were skipped",
}
