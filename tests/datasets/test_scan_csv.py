"""The compiled loop over CSV finds the same records, values, and rejections as the reader of single records, and leaves it little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from datasets.pipeline.reading import csv_file, csv_lines, lines
from datasets.pipeline.reading.columns import Columns
from datasets.pipeline.reading.csv_dialect import Dialect
from datasets.pipeline.reading.csv_lines import Unread
from datasets.pipeline.reading.lines import Lines
from datasets.pipeline.reading.scan.csv_table import ScannedRecords
from datasets.pipeline.rows import MAX_LINE_BYTES
from tests.datasets.test_csv_stretches import field, table

PAIR = Columns(prompt="prompt", completion="completion")
INSTRUCTION = Columns(prompt="instruction", completion="output", context="input", group="group")
CHAT = Columns(messages="messages")
PIECES = [
    *(b'"', b'""', b'"""', b",", b";", b"\t", b"\n", b"\r\n", b"\r", b"\r\r\n", b"a", b" ", b"\0", b"\x01", b"\x0b", b"\x1f"),
    *(b'","', b'"\n"', b'"x\ny",z\n', b"a" * 31, b"a" * 32, b"a" * 33, b'"' + b"a" * 63 + b'"', b"\n\n", b" \t\n", b",,\n"),
    *(b"\xc3\xa9", b"\xe9", b"\xc1\xbf", b"\xe0\xa0\x80", b"\xe0\x9f\xbf", b"\xed\x9f\xbf", b"\xed\xa0\x80", b"\xf5", b"\x80"),
    *(b"\xf0\x90\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xe4\xb8", b"\xf0\x9f\x98"),
]  # fmt: skip
wild = st.lists(st.sampled_from(PIECES) | field, max_size=30).map(b"".join)


@pytest.fixture(params=[48, 1 << 19])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Of small blocks records lie across the ends."""
    with monkeypatch.context() as patch:
        patch.setattr(lines, "BATCH_BYTES", request.param)
        yield request.param


def _read(path: Path, columns: Columns, *, is_large: bool) -> Any:
    parsed = []
    for number, chunk in enumerate(csv_file.read_csv(path, is_large=is_large)):
        sampled = chunk.sample(2)
        parsed.append(chunk.parsed(columns))
        if not number:
            assert sampled == [chunk._fields(place) for place in range(len(sampled))]
    rows = [row for each in parsed for row in each.rows.to_pylist()]
    fields = [each.fields_of(place) for each in parsed for place in range(each.rows.num_rows)]
    return rows, fields, [one for each in parsed for one in (*each.rejections, *each.unfit)]


def _both(path: Path, columns: Columns) -> tuple[Any, Any]:
    scanned = _read(path, columns, is_large=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_lines.Unread, "stretch", lambda *_: ())
        return scanned, _read(path, columns, is_large=False)


@given(data=table | wild)
@example(data=b'"a"b,c\n"d","e"\n"f\ng",h\n')
@example(data=b'x\n"a""b","""c"""\n"","d"\r\n\n \n,\n')
@example(data=b'a,"b\n"c",d\n"e",f\n')
@example(data=b'caf\xe9,b\n"c\nd",e\ncaf\xe9,f\ng,h')
@example(data=b'a,b\rc,d\n"e",f\r\r\n"g","h\r\ni"\r\n')
@example(data=b'a,"' + b"b" * 70 + b'""' + b"c" * 70 + b'\n"\nd,e"f\ng,h')
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_it_keeps_and_refuses_what_the_reader_of_single_records_does(
    data: bytes, tmp_path: Path, block_bytes: int
) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"prompt,completion\n" + data)
    scanned, single = _both(path, PAIR)
    assert scanned == single


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_contexts_groups_and_delimiters(delimiter: str, tmp_path: Path, block_bytes: int) -> None:
    records = [
        ["instruction", "input", "output", "group", ""],
        ["a", "", "b", "g", ""],
        ['"a"""', '"more\n"', '"b\r\n"', "", ""],
        ['say "a"', "", "b", '""', ""],  # one by one
        ["\u00e9", "\u4e2d", "", "\U0001f600", "x"],
        ["too", "few"],
    ]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(delimiter.join(record) for record in records), newline="")
    scanned, single = _both(path, INSTRUCTION)
    assert scanned == single
    prompts = [(row["prompt"], row["completion"], row["group"], row["line"]) for row in scanned[0]]
    assert prompts == [
        ("a", "b", "g", 2),
        ('a"\n\nmore\n', "b\r\n", None, 3),
        ('say "a"', "b", None, 6),
        ("\u00e9\n\n\u4e2d", "", "\U0001f600", 7),
    ]
    assert [(one.line, one.reason.value) for one in scanned[2]] == [(8, "WRONG_FIELD_COUNT")]


def test_chats_are_made_of_values(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('messages\n"[{""role"":""assistant"",""content"":""a""}]"\nb"[]\n')
    scanned, single = _both(path, CHAT)
    assert scanned == single
    assert [row["messages"] for row in scanned[0]] == ['[{"role":"assistant","content":"a"}]']


def test_a_line_is_as_long_as_it_may_be_and_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    longest = b"a" * (MAX_LINE_BYTES - 2)
    path.write_bytes(b'prompt,completion\n%s,b\n%s,bc\n"%s\n",\nc,d\n' % (longest, longest, longest))
    scanned, single = _both(path, PAIR)
    assert scanned == single
    assert [row["line"] for row in scanned[0]] == [2, 4, 6]
    assert [(one.line, one.reason.value) for one in scanned[2]] == [(3, "LINE_TOO_LONG")]


def _stretch(data: bytes) -> tuple[list[int], list[int], int]:
    """(lines of the records with two fields, lines of those with others, the line where it stops)."""
    unread = Unread()
    unread.add(1, Lines.of(data.removesuffix(b"\n").split(b"\n")))
    records = ScannedRecords(["a", "b"], 0.0)
    records.take_stretch(unread, Dialect())
    return records.numbers().tolist(), [one.line for one in records.rejections], 1 + unread.at


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"a,b\nc,d\n", ([1, 2], [], 3)),
        (b'"a\nb","c""d"\n\n \t\r\ne,f\r\n', ([1, 5], [], 6)),
        (b"a\nb,c,d\ne,f\n", ([3], [1, 2], 4)),
        ("\u00e9,\u4e2d\n\"\U0001f600\",\n".encode(), ([1, 2], [], 3)),
        (b'a,b\nc"d,e\nf,g\n', ([1], [], 2)),
        (b'a,b\n"c"d,e\n', ([1], [], 2)),
        (b'a,b\n"c,d\n', ([1], [], 2)),
        (b"a,b\nc,\xe9\n", ([1], [], 2)),
        (b'a,b\n"\xed\xa0\x80",c\n', ([1], [], 2)),
        (b"a,b\nc,\0\n", ([1], [], 2)),
        (b'a,b\n"\0",c\n', ([1], [], 2)),
        (b"a,b\nc,d\re\n", ([1], [], 2)),
        (b'a,b\n"c\rd",e\n', ([1], [], 2)),
    ],
)  # fmt: skip
def test_where_a_stretch_ends(data: bytes, found: tuple[list[int], list[int], int]) -> None:
    assert _stretch(data) == found
