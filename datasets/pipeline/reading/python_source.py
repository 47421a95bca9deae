"""Python source, a file or a zip of a project: each function, class, or module is a row, and its file is its group."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common.child import ChildError
from datasets.pipeline.arrays import table
from datasets.pipeline.reading import source_parser
from datasets.pipeline.reading.archive import open_archive
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.pipes import ChildDied, read_exactly
from datasets.pipeline.recipe import PythonUnits
from datasets.pipeline.rows import Parsed, Reason, Rejection, Unusable, excerpt, parse_rejection

MAX_DEATHS = 50


TOO_SMALL = {
    PythonUnits.FUNCTIONS: "FUNCTION_TOO_SMALL",
    PythonUnits.CLASSES: "CLASS_TOO_SMALL",
    PythonUnits.MODULES: "MODULE_TOO_SMALL",
}


class Pieces:
    """Pieces of source files, each with its file for its group, and what could not be read."""

    def __init__(self, units: PythonUnits) -> None:
        self.progress = 1.0
        self._contents: tuple[str, ...] = ("text",) if units is PythonUnits.MODULES else ("prompt", "completion")
        self._columns: dict[str, list[Any]] = {name: [] for name in (*self._contents, "group", "source", "line")}
        self._rejections: list[Rejection] = []

    def add(self, reply: dict[str, Any], group: str, source: str | None) -> None:
        if "reason" in reply:
            self.reject(reply["line"], Reason(reply["reason"]), reply["excerpt"], source)
            return
        for row in reply["rows"]:
            values = (*(row[name] for name in self._contents), group, source, row["line"])
            for column, value in zip(self._columns.values(), values, strict=True):
                column.append(value)

    def reject(self, line: int, reason: Reason, seen: bytes | str, source: str | None) -> None:
        self._rejections.append(parse_rejection(line, reason, seen, source=source))

    def sample(self, most: int) -> list[Mapping[str, Any]]:
        return [self._fields(place) for place in range(min(most, len(self._columns["line"])))]

    def parsed(self, _: Columns) -> Parsed:
        rows = table(self._columns, len(self._columns["line"]))
        return Parsed(rows, [], self._rejections, self._fields, rows.nbytes)

    def _fields(self, place: int) -> dict[str, Any]:
        return {name: self._columns[name][place] for name in (*self._contents, "group")}


def read_python(path: Path, file_name: str, units: PythonUnits, skipped: dict[str, int]) -> Iterator[Pieces]:
    """Batches of such units; `skipped` counts what is neither a row nor a rejection. Raises ChildError."""
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    with Parser(units) as parser:
        yield from _read_zip(path, parser, skipped) if is_zip else _read_file(path, file_name, parser, skipped)


def _read_file(path: Path, file_name: str, parser: Parser, skipped: dict[str, int]) -> Iterator[Pieces]:
    batch = Pieces(parser.units)
    with path.open("rb") as file:
        data = file.read(source_parser.MAX_SOURCE_BYTES + 1)
    if len(data) > source_parser.MAX_SOURCE_BYTES:
        batch.reject(1, Reason.FILE_TOO_LARGE, data, None)
    else:
        group = excerpt(file_name) or "source"  # a row without a group would be one of its own
        _add(batch, parser, data, group=group, source=None, skipped=skipped)
    yield batch


def _read_zip(path: Path, parser: Parser, skipped: dict[str, int]) -> Iterator[Pieces]:
    with open_archive(path) as archive:
        skipped["NOT_SOURCE"] = archive.skipped
        total = sum(member.info.file_size for member in archive.members) or 1
        done = 0
        for member in archive.members:
            batch = Pieces(parser.units)
            try:
                data = archive.read(member)
                _add(batch, parser, data, group=member.name, source=member.name, skipped=skipped)
            except Unusable as error:
                batch.reject(1, error.reason, member.name, excerpt(member.name))
            done += member.info.file_size
            batch.progress = done / total
            yield batch  # file by file: parsing is slow enough that each is worth showing


def _add(
    batch: Pieces, parser: Parser, data: bytes, *, group: str, source: str | None, skipped: dict[str, int]
) -> None:
    reply = parser.parse(data)
    batch.add(reply, group, source)
    if "reason" not in reply:
        key = TOO_SMALL[parser.units]
        skipped[key] = skipped.get(key, 0) + reply["small"]


class Parser:
    """A child process that parses many files, and is replaced when one of them ends it."""

    def __init__(self, units: PythonUnits = PythonUnits.FUNCTIONS) -> None:
        self.units = units
        self._child: subprocess.Popen[bytes] | None = None
        self._deaths = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def parse(self, data: bytes) -> dict[str, Any]:
        """The reply of source_parser.parse; TOO_COMPLEX for a file that ended the child."""
        try:
            reply = self._ask(data)
        except (ChildDied, BrokenPipeError):
            self._deaths += 1
            reply = {"reason": "TOO_COMPLEX", "line": 1, "excerpt": excerpt(data)}
        if reply.get("reason") == "TOO_COMPLEX":
            self._end()  # where memory ran out, the next file deserves a fresh heap
        if self._deaths > MAX_DEATHS:
            raise ChildError(
                "SOURCE_TOO_COSTLY",
                f"More than {MAX_DEATHS} files could not be parsed within {source_parser.CPU_SECONDS_PER_FILE} s and "
                f"{source_parser.MAX_MEMORY_BYTES >> 20} MB each. Leave generated files out of the archive.",
            )
        return reply

    def _ask(self, data: bytes) -> dict[str, Any]:
        if self._child is None:
            self._child = _start(self.units)
        requests, replies = self._child.stdin, self._child.stdout
        assert requests
        assert replies
        requests.write(struct.pack(">Q", len(data)) + data)
        requests.flush()
        size = struct.unpack(">Q", read_exactly(replies.fileno(), 8))[0]
        if size > 8 * source_parser.MAX_REPLY_BYTES:
            raise ChildDied
        reply: dict[str, Any] = json.loads(read_exactly(replies.fileno(), size))
        return reply

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _start(units: PythonUnits) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", "-W", "ignore", source_parser.__file__, units.value]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/")
