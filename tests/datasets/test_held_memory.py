"""What is kept of an upload while it is read does not grow with it, however little of it is rows."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import pytest

from common.child import Attempt
from datasets.pipeline import run
from datasets.pipeline.reading import upload
from datasets.pipeline.reading.columns import Columns, resolve_columns
from datasets.pipeline.reading.json_rows import JsonRecords
from datasets.pipeline.reading.lines import Lines
from datasets.pipeline.reading.shapes import Shapes
from datasets.pipeline.rows import BATCH_ROWS, Rejection
from datasets.pipeline.run import KEPT_UNREADABLE, Run
from tests.datasets.pipelines import lines, order, process, refused, zipped

MB = 1_000_000
BLANK = (b" " * 999 + b"\n") * 500  # half a megabyte, in lines that are no rows
HELD = 4 * MB  # in place of HELD_BYTES: so a smaller upload shows it
MOST = 2 * HELD + 25 * MB  # one batch is made while another one is looked at, and a block is read
BROKEN = '{"text": no}\n'
TOO_LONG = b"x" * 1_100_000 + b"\n"


def _rows(head: bytes, row: bytes, between: bytes, megabytes: int) -> bytes:
    count = megabytes * MB // len(between)
    return head + b"".join(row.replace(b"%", b"%d" % number) + between for number in range(count))


def _most_held(folder: Path, data: bytes, name: str) -> int:
    """Bytes that were alive at once, of which numpy's are some and Arrow's none."""
    order(folder, data, name, {"near_dedup": None, "bias": False})
    version = Run(Attempt(folder))
    tracemalloc.start()
    try:
        version.process()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(params=["large", "small"])
def large_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Compiled readers, which have been imported before anything is counted, and the others."""
    monkeypatch.setattr(run, "HELD_BYTES", HELD)
    monkeypatch.setattr(upload, "LARGE_FROM_BYTES", 0 if request.param == "large" else 1 << 40)
    for name, data in (("rows.jsonl", b'{"text": "a"}\n'), ("rows.csv", b"text\na\n")):
        process(tmp_path / name, data, name, near_dedup=None, bias=False)


@pytest.mark.usefixtures("large_from")
@pytest.mark.parametrize("between", [BLANK, TOO_LONG], ids=["blank lines", "lines that are too long"])
@pytest.mark.parametrize(
    ("name", "head", "row"), [("rows.jsonl", b"", b'{"text": "row %"}\n'), ("rows.csv", b"text,more\n", b"row %,\n")]
)
def test_a_few_rows_do_not_keep_the_upload_that_they_stand_in(
    name: str, head: bytes, row: bytes, between: bytes, tmp_path: Path
) -> None:
    most = _most_held(tmp_path / "run", _rows(head, row, between, 50), name)
    assert most < MOST


def test_a_row_does_not_keep_where_all_lines_around_it_are() -> None:
    """Of a line that is a line feed alone the two numbers take sixteen times as much as the line."""
    raws = Lines.of([b"", b'{"text": "a"}', *[b""] * 1_000])
    numbers, places = weakref.ref(raws.starts), weakref.ref(raws.ends)
    parsed = JsonRecords(raws, range(1, 1_003), 0.0, Shapes()).parsed(Columns(text="text"))
    del raws
    assert (numbers(), places()) == (None, None)
    assert parsed.fields_of(0) == {"text": "a"}
    assert parsed.held_bytes == 1_001 + 13 + 16


@pytest.mark.usefixtures("large_from")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl", BROKEN.encode() + BLANK * 100 + b'{"text": "a"}\n'),
        ("rows.csv", b"text,more\n" + BLANK * 100 + b"a,\n"),
        ("rows.jsonl", b'{"text": "a"}\n' + BLANK * 100),
    ],
    ids=["blank lines", "blank lines of a table", "blank lines at the end"],
)
def test_blank_lines_are_not_kept(name: str, data: bytes, tmp_path: Path) -> None:
    assert _most_held(tmp_path / "run", data, name) < MOST


@pytest.mark.usefixtures("large_from")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rows.jsonl", BROKEN.encode() * 90_000 + b'{"text": "a"}\n'),
        ("rows.csv", b"text,more\n" + b"no\n" * 90_000 + b"a,\n"),
    ],
)
def test_what_cannot_be_read_before_the_first_record_is_kept_on_disk(
    name: str, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = []

    def resolve(*arguments: Any) -> Columns:
        alive.append(sum(type(each) is Rejection for each in gc.get_objects()))
        return resolve_columns(*arguments)

    monkeypatch.setattr(run, "resolve_columns", resolve)
    version = process(tmp_path / "run", data, name)
    assert (version.result["rows_kept"], version.result["rejected"]) == (1, 90_000)
    assert len(alive) == 1
    assert alive[0] <= KEPT_UNREADABLE + 2 * BATCH_ROWS


@pytest.mark.parametrize("count", [KEPT_UNREADABLE - 1, KEPT_UNREADABLE, KEPT_UNREADABLE + 1])
def test_each_record_before_the_first_that_can_be_read_is_told_once(count: int, tmp_path: Path) -> None:
    version = process(tmp_path / "run", BROKEN * count + lines({"text": "a"}, "[]"), "rows.jsonl")
    assert [row["line"] for row in version.rows] == [count + 1]
    assert version.why == [*((number, "NOT_JSON") for number in range(1, count + 1)), (count + 2, "NOT_AN_OBJECT")]


def test_an_upload_without_a_record_tells_of_all(tmp_path: Path) -> None:
    count = KEPT_UNREADABLE + 1
    error = refused(tmp_path / "run", BROKEN * count, "rows.jsonl")
    assert error.message == f"None of the {count:,} rows can be used: {count:,} x NOT_JSON (first in line 1)."


def test_members_of_a_zip_are_unpacked_anew(tmp_path: Path) -> None:
    count = KEPT_UNREADABLE + 1
    members = {"a.jsonl": BROKEN * count, "b.jsonl": BROKEN * 2, "c.jsonl": lines({"text": "a"}), "d.txt": "no data"}
    version = process(tmp_path / "run", zipped(members), "rows.zip")
    assert [(row["source"], row["line"]) for row in version.rows] == [("c.jsonl", 1)]
    assert [one["source"] for one in version.rejections] == ["a.jsonl"] * count + ["b.jsonl"] * 2
    assert version.result["skipped"] == {"NOT_DATA": 1}
