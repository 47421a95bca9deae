"""Records of CSV that are written by the book are read a stretch at a time, all others one by one; nobody can tell which it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datasets.pipeline.reading import csv_file, csv_lines, lines
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.csv_stretches import Stretches
from datasets.pipeline.reading.lines import Lines

PAIR = Columns(prompt="prompt", completion="completion")
HEADER = b"prompt,completion\n"

piece = st.sampled_from(
    [
        b'"',
        b'""',
        b",",
        b"\n",
        b"\r\n",
        b"\r",
        b"a",
        b" ",
        b"bc",
        "\u00e9".encode(),
        b"\xe9",
        b"\0",
        b'","',
        b'"\n"',
        b'"x\ny",z\n',
    ]
)
field = st.sampled_from([b"a", b"", b'"b"', b'""', b'"c,\nd"', b'"e""f"', "\u00e9".encode(), b'"g\r\nh"', b" "])
record = st.tuples(field, field).map(b",".join)
good = st.lists(record, max_size=12).map(b"\n".join)
table = st.tuples(good, st.lists(piece, max_size=6).map(b"".join), good).map(b"\n".join)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """So that records lie across their ends."""
    with monkeypatch.context() as patch:
        patch.setattr(lines, "BATCH_BYTES", 48)
        yield


def _read(path: Path) -> Any:
    parsed = [chunk.parsed(PAIR) for chunk in csv_file.read_csv(path)]
    rows = [row for each in parsed for row in each.rows.to_pylist()]
    fields = [each.fields_of(place) for each in parsed for place in range(each.rows.num_rows)]
    return rows, fields, [one for each in parsed for one in each.rejections]


@given(data=table)
@example(data=b'"a"b,c\n"d","e"\n"f\ng",h\n')
@example(data=b'x\n"a""b","""c"""\n"","d"\r\n\n \n,\n')
@example(data=b'a,"b\n"c",d\n"e",f\n')
@example(data=b'caf\xe9,b\n"c\nd",e\ncaf\xe9,f\ng,h')
@example(data=b'a,b\rc,d\n"e",f\r\r\n"g","h\r\ni"\r\n')
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_both_ways_keep_and_refuse_the_same(data: bytes, tmp_path: Path, small_blocks: None) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(HEADER + data)
    at_once = _read(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_lines.Unread, "stretch", lambda *_: ())
        assert at_once == _read(path)


def test_a_stretch_ends_where_something_needs_a_closer_look() -> None:
    data = b'a,b\n"c\nd","e""f"\ng\n"h"i,j\nk,l\n'
    stretches = Stretches(Lines.of(data.removesuffix(b"\n").split(b"\n")), ",", 1_000)
    found = stretches.from_line(0, 2, 100)
    assert (found.stop, found.firsts) == (4, [0, 1, 3])
    assert found.values == [("a", "b"), ("c\nd", 'e"f'), None]
    assert stretches.from_line(4, 2, 100).firsts == []
    assert stretches.from_line(5, 2, 100).values == [("k", "l")]
    assert stretches.from_line(0, 2, 1).stop == 1
