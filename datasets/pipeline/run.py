"""The whole pipeline over one upload, in two passes.

The first one parses, cleans, validates, and removes exact duplicates, batch by batch, and spools what it keeps. The second
one goes over the spool, so that its steps can see all rows before they decide about one. Memory is bounded by a batch and
the index of the dedup.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import pyarrow as pa

from common.child import Attempt, ChildError
from datasets.pipeline import excerpts
from datasets.pipeline.bias import Bias
from datasets.pipeline.clean import Clean
from datasets.pipeline.expecting import Expecting
from datasets.pipeline.fingerprint import PIPELINE_VERSION, fingerprint
from datasets.pipeline.lengths import Lengths
from datasets.pipeline.memory import give_back_freed_memory
from datasets.pipeline.naming import names_of
from datasets.pipeline.near_duplicates import DropNearDuplicates
from datasets.pipeline.near_known import KnownNear
from datasets.pipeline.pii import Action, Policy
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.progress import Progress, StepReport, sorted_counts
from datasets.pipeline.reading.columns import Columns, resolve_columns
from datasets.pipeline.reading.upload import Upload
from datasets.pipeline.recipe import Format, PythonUnits, Recipe
from datasets.pipeline.rows import Chunk, Outcome, Parsed, Rejection, excerpt, joined
from datasets.pipeline.samples import Samples
from datasets.pipeline.scrubbing import Scrub
from datasets.pipeline.shares import INDEXED, SEARCHED
from datasets.pipeline.spool import Spool, Spooled, clear, spooled
from datasets.pipeline.steps import WITH_DIGEST, AssignSplit, ExactDedup, Validate, numbered
from datasets.pipeline.stored.index import IndexWriter
from datasets.pipeline.stored.parent import DropKnown, Parent
from datasets.pipeline.stored.shards import VersionWriter, described, rows_of_splits

SAMPLED_ROWS = 10_000
BATCH_RECORDS, BATCH_BYTES = 1_000, 1 << 18  # smaller ones, as of small files, are joined
HELD_BYTES = 16 << 20  # unless they keep so much of the upload for what they may have to show of it
KEPT_UNREADABLE = 10_000  # records before the first that can be read: of more, the upload is read once more

FIRST_PASS = ("parse", "clean", "validate", "dedup_exact")
SECOND_PASS = ("dedup_near", "split", "pii", "bias", "store")


class Run:
    """One upload on its way to a version, in `attempt.folder / "version"`."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self.recipe = Recipe.from_json(attempt.orders["recipe"])
        self.upload = Upload(attempt, self.recipe)
        self.key = bytes.fromhex(attempt.orders["pii_key"])
        self.policy = Policy(self.recipe.pii, self.recipe.secrets, names_of(self.recipe, attempt))
        self.parent = Parent.of(attempt.orders.get("parent"))
        self._part = 0.0, 1.0  # of a step's work, which going over all rows once is
        self.found: Counter[Kind] = Counter()
        self.expecting = Expecting(self.recipe.expectations)
        before = self.parent.manifest if self.parent else {}
        lengths = before.get("length_histograms", ()), before.get("length_totals")
        self.bias = Bias(before.get("bias_counts")) if self.recipe.bias else None
        self.samples, self.lengths = Samples(self.recipe, self.policy, self.key), Lengths(*lengths)
        self.first_rejections: dict[str, Rejection] = {}
        self.reports = {name: StepReport(name) for name in (*FIRST_PASS, *SECOND_PASS)}
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
        finally:
            self.upload.clear()

    def _process(self) -> dict[str, Any]:
        self.progress.start(self.reports["parse"])
        with self._timed("parse"):
            source_format, chunks = self.upload.open()
            columns, chunks = self._columns(source_format, chunks)
        with self.upload.path.open("rb") as file:
            source_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        parent = self.parent.fingerprint if self.parent else None
        writer = VersionWriter(self.attempt.folder / "version", source_sha256)
        try:
            self._first_pass(source_format, columns, chunks)
            if self.upload.is_large:
                give_back_freed_memory()
            index = self._second_pass(writer)
        finally:
            clear(self.attempt.folder)
        with self._timed("store"):
            files = writer.close(self.parent.files if self.parent else ())
            kept_for_later = [*map(described, index.close()), writer.write_samples(self.samples.to_json())]
        self._end(SECOND_PASS)
        steps = [
            {**report.to_json(), "examples": [example._asdict() for example in report.examples]}
            for report in self.reports.values()
        ]
        counts = self._counts(writer.rejected)
        if self.parent:
            moved = self.parent.moved(files)
            self._tell_what_was_added(counts, moved)
            counts = {**self.parent.with_added(counts), "added": counts, "moved": moved}
            steps = [self.parent.with_step(step) for step in steps]
        counts["splits"] = rows_of_splits(files)
        counts["length_histograms"] = self.lengths.to_json()
        counts["bias"] = self.bias.report() if self.bias else None
        self._tell_about(counts["splits"])
        writer.publish(
            {
                **counts,
                "length_totals": self.lengths.totals,
                "bias_counts": self.bias.to_json() if self.bias else None,
                "pipeline_version": PIPELINE_VERSION,
                "source_sha256": source_sha256,
                "parent": parent,
                "fingerprint": fingerprint(source_sha256, self.recipe, parent),
                "recipe": {**self.recipe.to_json(), "format": source_format.value, "columns": columns.to_json()},
                "files": files,
                "index": kept_for_later,
                "steps": steps,
            }
        )
        return {
            **counts,
            "format": source_format.value,
            "columns": columns.to_json(),
            "size_bytes": sum(file["size_bytes"] for file in (*files, *kept_for_later) if "key" not in file),
            "steps": [self._timed_report(step) for step in steps],
        }

    def _counts(self, rejected: int) -> dict[str, Any]:
        found = Counter({kind.value: count for kind, count in self.found.items()})
        return {
            "rows_in": self.reports["parse"].rows_in,
            "rows_kept": self.reports["store"].rows_kept,
            "rejected": rejected,
            "skipped": self.upload.skipped,
            "pii_findings": [{"key": kind, "count": count} for kind, count in sorted_counts(found)],
        }

    def _timed_report(self, step: dict[str, Any]) -> dict[str, Any]:
        told = {name: value for name, value in step.items() if name != "examples"}
        return {**told, "seconds": round(self.reports[step["name"]].seconds, 3)}

    def _tell_what_was_added(self, added: dict[str, Any], moved: int) -> None:
        self.attempt.events.log(f"{added['rows_kept']:,} rows of {added['rows_in']:,} are new.")
        if moved:
            self.attempt.events.log(
                f"{moved:,} rows of the version before went back to the split that they had drawn: now that TRAIN has "
                "rows of its own, it need not borrow theirs."
            )

    def _columns(self, source_format: Format, chunks: Iterator[Chunk]) -> tuple[Columns, Iterator[Chunk]]:
        """The columns, by the first chunk that has records, and all chunks."""
        if source_format is Format.PYTHON:
            if self.recipe.python_units is PythonUnits.MODULES:
                return Columns(text="text", group="group"), chunks
            return Columns(prompt="prompt", completion="completion", group="group"), chunks
        read: list[Chunk] = []
        kept = 0
        for chunk in chunks:
            self.attempt.check_stop()
            sample = chunk.sample(SAMPLED_ROWS)
            if sample:
                columns = resolve_columns(self.recipe.columns, sample)
                chosen = ", ".join(f"{role} from '{excerpt(name, 60)}'" for role, name in columns.to_json().items())
                self.attempt.events.log(f"Columns: {chosen}.")
                return columns, self.upload.again() if kept > KEPT_UNREADABLE else chain(read, [chunk], chunks)
            if kept <= KEPT_UNREADABLE:
                unreadable = _Unreadable(chunk)
                read.append(unreadable)
                kept += 1 + unreadable.size
                if kept > KEPT_UNREADABLE:
                    read.clear()
        return Columns(), self.upload.again() if kept > KEPT_UNREADABLE else iter(read)

    def _first_pass(self, source_format: Format, columns: Columns, chunks: Iterator[Chunk]) -> None:
        recipe = self.recipe
        hidden = self.policy.of_excerpts().kinds(Action.MASK)
        clean = Clean(source_format is Format.PYTHON, self.upload.is_large, hidden, self.policy.names).begin()
        validate = Validate(columns, recipe.min_characters, recipe.max_characters).begin()
        validate = self.expecting.before(validate)
        dedup = (DropKnown(self.parent) if self.parent else ExactDedup()).begin() if recipe.exact_dedup else None
        self._start(("clean", "validate"))
        if dedup:
            self._start(("dedup_exact",))
        spool = Spool(self.attempt.folder, WITH_DIGEST)
        for batch in self._batches(columns, chunks):
            rejections = list(batch.rejections)
            unfit = len(batch.unfit)  # cleaning leaves them to validation
            rows = self._step("clean", clean, batch.rows, batch.rows.num_rows, rejections, passing=unfit)
            rows = self._step("validate", validate, replace(batch, rows=rows), batch.records, rejections)
            rows = self._step("dedup_exact", dedup or Outcome, rows, rows.num_rows, rejections)
            spool.add(rows, self._in_order(rejections))
        spool.close()
        self.expecting.conclude()
        if not self.reports["validate" if self.parent else "dedup_exact"].rows_kept:  # nothing new is no failure
            raise self._no_usable_rows()
        self._end(FIRST_PASS)

    def _second_pass(self, writer: VersionWriter) -> IndexWriter:
        assign = AssignSplit(self.recipe.split).begin()
        scrub = Scrub(self.policy, self.key, self.found, self.samples.take_places).begin()
        count = self.bias.begin(is_large=self.upload.is_large) if self.bias else Outcome
        with spooled(self.attempt.folder, self._after_batch) as everything:
            index = IndexWriter(writer.folder, everything.num_rows)
            near = self._near(everything, index)
            self._start(name for name in SECOND_PASS if name != "dedup_near" and self._takes_place(name))
            start = 0
            for spooled_rows, rejections in zip(everything.batches(), everything.rejections(), strict=True):
                if self.recipe.exact_dedup:
                    with self._timed("dedup_exact"):
                        index.add_contents(spooled_rows)
                rows = numbered(spooled_rows, start)
                start += rows.num_rows
                rows = self._step("dedup_near", near, rows, rows.num_rows, rejections)
                rows = self._step("split", assign, rows, rows.num_rows, rejections)  # by groups as they were
                rows = self._step("pii", scrub, rows, rows.num_rows, rejections)
                with self._timed("pii"):
                    rejections = excerpts.masked(rejections, self.policy, self.key)
                kept = self._step("bias", count, rows, rows.num_rows, rejections)
                with self._timed("store"):
                    index.place(kept["number"].to_numpy(), *writer.add(kept))
                    self.lengths.add(kept)
                    self.reports["store"].count(kept.num_rows, kept.num_rows)
                    writer.reject(self._in_order(rejections))
        return index

    def _near(self, everything: Spooled, index: IndexWriter) -> Callable[[pa.Table], Outcome]:
        if self.recipe.near_dedup is None:
            return Outcome
        self.attempt.events.log(f"Looking for near-duplicates among {everything.num_rows:,} rows.")
        report = self.reports["dedup_near"]
        self.progress.start(report)
        self._part = 0.0, INDEXED
        with self._timed("dedup_near"):
            choices = self.recipe.near_dedup
            known = KnownNear(self.parent, choices, self.policy, self.key) if self.parent else None
            step = DropNearDuplicates(choices, known, self.samples.take_clusters, self._after_band)
            applied = step.begin(everything, index.add_sketches)
        self._part = 0.0, 1.0
        self.progress.prepared(report, SEARCHED)
        return applied

    def _takes_place(self, name: str) -> bool:
        skipped = {"dedup_exact": not self.recipe.exact_dedup, "dedup_near": self.recipe.near_dedup is None}
        skipped["bias"] = not self.recipe.bias
        return not skipped.get(name, False)

    def _after_batch(self, share: float) -> None:
        begun, ended = self._part
        self.progress.advance(begun + (ended - begun) * share)
        self.attempt.check_stop()

    def _after_band(self, share: float) -> None:
        self._part = INDEXED, SEARCHED
        self._after_batch(share)

    def _batches(self, columns: Columns, chunks: Iterator[Chunk]) -> Iterator[Parsed]:
        """What was parsed, in batches that are worth a step's while."""
        waiting: list[Parsed] = []
        records = size = held = 0
        share = 0.0
        for batch, share in self._parsed(columns, chunks):
            waiting.append(batch)
            records += batch.records + len(batch.rejections)
            size += batch.rows.nbytes
            held += batch.held_bytes
            if records >= BATCH_RECORDS or size >= BATCH_BYTES or held >= HELD_BYTES:
                yield joined(waiting)
                waiting, records, size, held = [], 0, 0, 0
            self.progress.advance(share)
        if waiting:
            yield joined(waiting)

    def _parsed(self, columns: Columns, chunks: Iterator[Chunk]) -> Iterator[tuple[Parsed, float]]:
        while True:
            self.attempt.check_stop()
            with self._timed("parse"):
                chunk = next(chunks, None)
                if chunk is None:
                    return
                batch = chunk.parsed(columns).released()
            self.reports["parse"].count(batch.records + len(batch.rejections), batch.records, batch.rejections)
            yield batch, chunk.progress

    def _step(
        self,
        name: str,
        apply: Callable[[Any], Outcome],
        batch: Any,
        rows_in: int,
        rejections: list[Rejection],
        passing: int = 0,
    ) -> pa.Table:
        """Apply a step to a batch; `passing` records are none of its business and go on as they are."""
        report = self.reports[name]
        with self._timed(name):
            outcome = apply(batch)
        report.count(rows_in + passing, outcome.kept.num_rows + passing, outcome.rejections)
        report.note_changes(outcome)
        rejections += outcome.rejections
        return outcome.kept

    def _start(self, names: Iterable[str]) -> None:
        for name in names:
            self.progress.start(self.reports[name])

    def _end(self, names: Iterable[str]) -> None:
        for name in names:
            self.progress.end(self.reports[name], "DONE" if self._takes_place(name) else "SKIPPED")

    def _in_order(self, rejections: list[Rejection]) -> list[Rejection]:
        """In the order of the upload, whichever step it was."""
        rejections.sort(key=lambda rejection: (rejection.source or "", rejection.line))
        for rejection in rejections:
            self.first_rejections.setdefault(rejection.reason, rejection)
        return rejections

    def _tell_about(self, splits: dict[str, int]) -> None:
        for what, count in self.upload.skipped.items():
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
            nothing = next((words for key, words in _NOTHING.items() if key in self.upload.skipped), "no rows")
            return ChildError("NO_USABLE_ROWS", f"The file has {nothing}. Upload one that has some.")
        reasons = [f"{count:,} x {key} ({self._example(key)})" for key, count in sorted_counts(counts)[:3]]
        return ChildError("NO_USABLE_ROWS", f"None of the {total:,} rows can be used: {'; '.join(reasons)}.")

    def _example(self, reason: str) -> str:
        [first] = excerpts.masked([self.first_rejections[reason]], self.policy, self.key)
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
        self._parsed = chunk.parsed(Columns()).released()

    @property
    def size(self) -> int:
        return len(self._parsed.rejections)

    def sample(self, _: int) -> list[Mapping[str, Any]]:
        return []

    def parsed(self, _: Columns) -> Parsed:
        return self._parsed


_SKIPPED_WORDS = {
    "NOT_SOURCE": "members of the archive are no Python source and were skipped",
    "NOT_DATA": "members of the archive are no data files and were skipped",
    "FUNCTION_TOO_SMALL": "functions have no docstring and a single statement, or nothing in them, and were skipped",
    "CLASS_TOO_SMALL": "classes have no docstring and a single statement, or nothing in them, and were skipped",
    "MODULE_TOO_SMALL": "modules have nothing but a docstring in them, and were skipped",
}
_NOTHING = {
    "FUNCTION_TOO_SMALL": "no function with a docstring and a body",
    "CLASS_TOO_SMALL": "no class with a docstring and a body",
    "MODULE_TOO_SMALL": "no module with a statement",
}
