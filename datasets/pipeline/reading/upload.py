"""An upload as the pipeline reads it: unpacked, its format recognised, and in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from common.child import Attempt, ChildError
from datasets.pipeline.reading.compressed import name_within, packed_by, unpack
from datasets.pipeline.reading.csv_dialect import Dialect
from datasets.pipeline.reading.csv_file import read_csv
from datasets.pipeline.reading.encoding import UTF_8, Encoding, encoding_of, transcode
from datasets.pipeline.reading.json_document import read_json
from datasets.pipeline.reading.jsonl import read_jsonl
from datasets.pipeline.reading.parquet_file import read_parquet
from datasets.pipeline.reading.python_source import read_python
from datasets.pipeline.reading.recognise import is_zip, recognise
from datasets.pipeline.reading.zipped_data import read_zip
from datasets.pipeline.recipe import ColumnMapping, Format, Recipe
from datasets.pipeline.rows import Chunk, excerpt

# Where compiled readers pay for their start, most of which the search for near-duplicates needs, too.
LARGE_FROM_BYTES = 16 << 20


class Upload:
    """The file that was uploaded; whatever has to lie unpacked while it is read lies in the attempt's folder."""

    def __init__(self, attempt: Attempt, recipe: Recipe) -> None:
        self.path = Path(attempt.orders["source"])
        self.skipped: dict[str, int] = {}
        self._attempt, self._recipe = attempt, recipe
        self._name = str(attempt.orders["file_name"])
        self._told = ""
        self.is_large = False
        self._mapped = tuple(name for name in recipe.to_json()["columns"].values() if name)

    def open(self) -> tuple[Format, Iterator[Chunk]]:
        """Its format and its chunks. Raises ChildError, as do the chunks."""
        content = self._unpacked()
        found = recognise(content, self._name, self._recipe.format, self._mapped)
        self.is_large = content.stat().st_size >= LARGE_FROM_BYTES
        self._attempt.events.log(f"Reading {excerpt(self._name, 100)} as {found}.")
        if found is Format.PYTHON and self._recipe.columns != ColumnMapping():
            raise ChildError("COLUMN_UNKNOWN", "Python source has no columns to map. Leave the columns out.")
        self._opened = content, found
        return found, self.again()

    def again(self) -> Iterator[Chunk]:
        """Its chunks from the first one on, once it is open."""
        return self._chunks(*self._opened)

    def clear(self) -> None:
        """Remove what was unpacked."""
        for path in self._drafts():
            path.unlink(missing_ok=True)

    def _unpacked(self) -> Path:
        """The upload itself, or what it holds, where it is packed."""
        kind = packed_by(self.path)
        if kind is None:
            return self.path
        into, _, _ = self._drafts()
        size = unpack(self.path, into, self._attempt.check_stop)
        self._attempt.events.log(f"Unpacked {self.path.stat().st_size:,} bytes of {kind} to {size:,}.")
        self._name = name_within(self._name)
        return into

    def _chunks(self, content: Path, found: Format) -> Iterator[Chunk]:
        if found is Format.PYTHON:
            return read_python(content, self._name, self._recipe.python_units, self.skipped)
        if is_zip(content):
            _, into, _ = self._drafts()
            check = self._attempt.check_stop
            return read_zip(content, into, lambda path: self._rows(path, found), self.skipped, check)
        return self._rows(content, found)

    def _rows(self, path: Path, found: Format) -> Iterator[Chunk]:
        if found is Format.JSONL:
            return read_jsonl(path, is_large=self.is_large)
        if found is Format.JSON:
            return read_json(path)
        if found is Format.PARQUET:
            return read_parquet(path, self._mapped)
        return self._table(path)

    def _table(self, path: Path) -> Iterator[Chunk]:
        encoding = encoding_of(path)
        if encoding is not UTF_8:
            *_, into = self._drafts()
            transcode(path, encoding, into, self._attempt.check_stop)
            path = into
        return read_csv(path, self._mapped, lambda dialect: self._tell(dialect, encoding), is_large=self.is_large)

    def _tell(self, dialect: Dialect, encoding: Encoding) -> None:
        text = f"Read as CSV: {dialect.words}, {encoding.words}."
        if text != self._told:  # the members of a zip are written alike
            self._attempt.events.log(text)
            self._told = text

    def _drafts(self) -> tuple[Path, Path, Path]:
        """Where a packed upload is unpacked, a zip's member while it is read, and a table in UTF-8."""
        folder = self._attempt.folder
        return folder / "unpacked", folder / "member", folder / "table"
