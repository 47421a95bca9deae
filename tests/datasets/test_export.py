"""What a version's rows are as a file: JSONL, Parquet, and CSV, byte by byte."""

from __future__ import annotations

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datasets.pipeline.rows import ROWS
from datasets.pipeline.stored.export import PIECE_BYTES, ExportFormat, Part, exported, rows_in
from tests.datasets.pipelines import lines, process

SPLITS = ("TRAIN", "VALIDATION", "TEST")
CHAT = [{"role": "user", "content": "Sum 1, 2"}, {"role": "assistant", "content": '"3"\n=ü'}]


def parts(folder: Path) -> list[Part]:
    return [Part(split, partial((folder / f"{split.lower()}-00000.parquet").open, "rb")) for split in SPLITS]


def write(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    """A version's shards, as far as an export looks at them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        rows = [{"line": 1, **row} for row in splits.get(split.lower(), [])]
        pq.write_table(pa.Table.from_pylist(rows, ROWS), folder / f"{split.lower()}-00000.parquet")
    return folder


def export(folder: Path, export_format: ExportFormat, split: str | None = None) -> bytes:
    return b"".join(exported(parts(folder), split, export_format))


def parquet(content: bytes) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(content)).to_pylist()


def test_a_pair_is_what_the_preview_shows_without_the_fields_that_no_row_has(tmp_path: Path) -> None:
    folder = write(
        tmp_path, train=[{"prompt": "p ü\n", "completion": 'c"'}], test=[{"prompt": "q", "completion": "d,e"}]
    )
    assert export(folder, ExportFormat.JSONL, "TRAIN").decode() == '{"prompt": "p ü\\n", "completion": "c\\""}\n'
    assert export(folder, ExportFormat.JSONL).decode() == (
        '{"split": "TRAIN", "prompt": "p ü\\n", "completion": "c\\""}\n'
        '{"split": "TEST", "prompt": "q", "completion": "d,e"}\n'
    )
    assert export(folder, ExportFormat.CSV).decode() == (
        '"split","prompt","completion"\r\n"TRAIN","p ü\n","c"""\r\n"TEST","q","d,e"\r\n'
    )
    assert parquet(export(folder, ExportFormat.PARQUET)) == [
        {"split": "TRAIN", "prompt": "p ü\n", "completion": 'c"'},
        {"split": "TEST", "prompt": "q", "completion": "d,e"},
    ]
    assert parquet(export(folder, ExportFormat.PARQUET, "TEST")) == [{"prompt": "q", "completion": "d,e"}]
    assert (rows_in(parts(folder), None), rows_in(parts(folder), "TEST")) == (2, 1)


def test_a_split_without_rows_has_the_versions_fields(tmp_path: Path) -> None:
    folder = write(tmp_path, train=[{"text": "t"}])
    assert export(folder, ExportFormat.JSONL, "TEST") == b""
    assert export(folder, ExportFormat.CSV, "TEST") == b'"text"\r\n'
    assert pq.read_schema(io.BytesIO(export(folder, ExportFormat.PARQUET, "TEST"))).names == ["text"]
    assert export(write(tmp_path / "none"), ExportFormat.CSV) == b'"split","prompt","completion","text","messages"\r\n'


def test_a_chat_is_json(tmp_path: Path) -> None:
    version = process(tmp_path, lines({"messages": CHAT}))
    assert json.loads(export(version.folder, ExportFormat.JSONL, "TRAIN")) == {"messages": CHAT}
    (row,) = parquet(export(version.folder, ExportFormat.PARQUET, "TRAIN"))
    assert json.loads(row["messages"]) == CHAT
    (row,) = csv.DictReader(io.StringIO(export(version.folder, ExportFormat.CSV, "TRAIN").decode(), newline=""))
    assert json.loads(row["messages"]) == CHAT


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_that_would_be_a_formula_is_none(tmp_path: Path, start: str) -> None:
    dangerous = f'{start}cmd|" /C calc"!A0'
    folder = write(tmp_path, train=[{"prompt": dangerous, "completion": f"x{dangerous}"}])
    content = export(folder, ExportFormat.CSV, "TRAIN").decode()
    [_, row] = csv.reader(io.StringIO(content, newline=""))
    assert row == [f"'{dangerous}", f"x{dangerous}"]
    for export_format, read in ((ExportFormat.JSONL, json.loads), (ExportFormat.PARQUET, lambda c: parquet(c)[0])):
        assert read(export(folder, export_format, "TRAIN")) == {"prompt": dangerous, "completion": f"x{dangerous}"}


def test_an_export_is_an_upload_that_gives_the_same_rows(tmp_path: Path) -> None:
    rows = [{"prompt": f"def f{n}():\n", "completion": f'    return "{n}",\r\n\t{n}'} for n in range(50)]
    version = process(tmp_path / "first", lines(*rows))
    for export_format, name in ((ExportFormat.JSONL, "rows.jsonl"), (ExportFormat.CSV, "rows.csv")):
        again = process(tmp_path / name, export(version.folder, export_format), name)
        assert again.rejections == []
        assert {content(row) for row in again.rows} == {content(row) for row in version.rows}
        assert len(again.rows) == 50


def content(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["prompt"], row["completion"], row["text"], row["messages"]


@pytest.mark.parametrize("export_format", list(ExportFormat))
def test_a_large_version_comes_in_small_pieces_and_takes_the_memory_of_a_row_group(
    tmp_path: Path, export_format: ExportFormat
) -> None:
    rows = pa.Table.from_pylist(
        [{"text": f"row {number} {'x' * 1500}", "line": number} for number in range(60_000)], ROWS
    )
    write(tmp_path)
    pq.write_table(rows, tmp_path / "train-00000.parquet", row_group_size=10_000)  # of 15 MB
    del rows
    before, most, size, counts = pa.total_allocated_bytes(), 0, 0, []
    for piece in exported(parts(tmp_path), None, export_format, counts.append):
        assert len(piece) < 2 * PIECE_BYTES
        most, size = max(most, pa.total_allocated_bytes() - before), size + len(piece)
    assert sum(counts) == 60_000
    assert most < 60 << 20
    assert export_format is ExportFormat.PARQUET or size > 90_000_000


def test_given_up_in_the_middle_its_file_is_closed(tmp_path: Path) -> None:
    rows = [{"text": f"{number} " + "x" * 900} for number in range(1_000)]
    folder, opened = write(tmp_path, train=rows), []

    def open_() -> Any:
        opened.append((folder / "train-00000.parquet").open("rb"))
        return opened[-1]

    for export_format in ExportFormat:
        pieces = exported([Part("TRAIN", open_)], "TRAIN", export_format)
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    assert opened and all(file.closed for file in opened)
