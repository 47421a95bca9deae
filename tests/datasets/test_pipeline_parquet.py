"""Parquet gives the rows that the same rows in JSON Lines give; a hostile file is a typed error, and ends nothing else."""

from __future__ import annotations

import hashlib
import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from common.child import ChildError
from datasets.pipeline.reading import allowance, parquet_file, parquet_reader
from tests.datasets.pipelines import lines, parquet, process, refused

PAIR = {"prompt": "p", "completion": "c"}
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHAREGPT = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "\u00e9"}]


@pytest.mark.parametrize(
    "rows",
    [
        [PAIR, {"prompt": "q", "completion": "d"}],
        [{"prompt": "p", "completion": None}, {"prompt": None, "completion": "c"}, PAIR, PAIR],
        [{"instruction": "i", "input": None, "output": "o"}, {"instruction": "i", "input": "", "output": "n"}],
        [{"instruction": "i", "input": "x", "output": "o"}, {"instruction": "j", "input": "\u4e2d\n", "output": "o"}],
        [{"Prompt": "p", "completion ": "c", "score": 0.5, "tags": ["a"], "meta": {"x": [{"y": 1}]}}],
        [{"text": "a", "group": 1}, {"text": "b", "group": None}, {"text": "c", "group": 1}],
        [{"text": "a", "group": "x"}, {"text": "b", "group": ""}, {"text": "nul\0", "group": "x"}],
        [{"text": "a", "group": "x"}, {"text": "b", "group": "\0"}],
        [{"text": "a"}, {"text": " "}, {"text": "a"}, {"text": ""}, {"text": "\u00e9" * 150_000}],
        [{"text": "a"}, {"text": "b" * 1_100_000}],
        [{"messages": CHAT}, {"messages": [CHAT[0]]}, {"messages": None}, {"messages": []}],
        [{"messages": [{**message, "name": None, "weight": 0.5} for message in CHAT]}],
        [{"messages": json.dumps(CHAT)}, {"messages": "[oops"}],
        [{"conversations": SHAREGPT, "id": 1}],
        [{"messages": [{"role": "assistant", "content": "a\0"}]}, {"messages": CHAT}],
        [
            {"messages": [{"role": "king", "content": "a"}]},
            {"messages": [{"role": "user", "content": None}, *CHAT]},
            {"messages": CHAT},
        ],
        [{"text": "b", "completion": None, "prompt": None}, {"text": "c", "completion": None, "prompt": None}],
    ],
)
def test_the_same_rows_as_json_lines(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    """Absent and null are one in Parquet; JSON Lines leave such fields out here."""
    written = lines(*({name: value for name, value in row.items() if value is not None} for row in rows))
    expected = process(tmp_path / "jsonl", written, format="JSONL")
    version = process(tmp_path / "parquet", parquet(rows))
    assert version.result["format"] == "PARQUET"
    assert version.result["columns"] == expected.result["columns"]
    assert version.rows_alone == expected.rows_alone
    what = ("line", "step", "reason", "field")
    assert [[one[name] for name in what] for one in version.rejections] == [
        [one[name] for name in what] for one in expected.rejections
    ]
    assert version.result["splits"] == expected.result["splits"]


@pytest.mark.parametrize(
    ("array", "kept", "why"),
    [
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"], []),
        (pa.array(["a", None, "b"], pa.large_string()), ["a", "b"], [(2, "MISSING_FIELD")]),
        (pa.array(["a", "b"], pa.string_view()), ["a", "b"], []),
        (pa.array([b"a", b"\xff", b"b", b"\xed\xa0\x80"]), ["a", "b"], [(2, "NOT_UTF8"), (4, "NOT_UTF8")]),
        (pa.array(["1", "2"]).cast(pa.int64()), None, [(1, "WRONG_TYPE"), (2, "WRONG_TYPE")]),
        (pa.array([1.5, None]), None, [(1, "WRONG_TYPE"), (2, "MISSING_FIELD")]),
        (pa.array([0], pa.timestamp("ns")), None, [(1, "WRONG_TYPE")]),
        (pa.array([["a"]]), None, [(1, "WRONG_TYPE")]),
        (pa.array([{"role": "a"}]), None, [(1, "WRONG_TYPE")]),
        (pa.array([None], pa.null()), None, [(1, "MISSING_FIELD")]),
    ],
)
def test_types_of_columns(tmp_path: Path, array: pa.Array, kept: list[str] | None, why: list[tuple[int, str]]) -> None:
    data = parquet(pa.table({"text": array}))
    if kept is None:
        error = refused(tmp_path, data)
        assert error.code == "NO_USABLE_ROWS"
        for _, reason in why:
            assert reason in error.message
        return
    version = process(tmp_path, data)
    assert [row["text"] for row in version.rows] == kept
    assert version.why == why


def test_text_that_is_no_utf_8_costs_its_message_list_alone(tmp_path: Path) -> None:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.binary())]))
    chats = pa.array([[{"role": "assistant", "content": text}] for text in (b"a", b"\xff", b"b")], kind)
    good = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    as_text = pa.Array.from_buffers(good, len(chats), chats.buffers()[:2], children=[_as_strings(chats.values)])
    for name, array in (("binary", chats), ("string", as_text)):
        version = process(tmp_path / name, parquet(pa.table({"messages": array})))
        assert [json.loads(row["messages"])[0]["content"] for row in version.rows] == ["a", "b"]
        assert version.why == [(2, "NOT_UTF8")]


def _as_strings(structs: pa.StructArray) -> pa.StructArray:
    content = structs.field("content")
    text = pa.StringArray.from_buffers(len(content), content.buffers()[1], content.buffers()[2])
    return pa.StructArray.from_arrays([structs.field("role"), text], ["role", "content"])


def test_rows_are_numbered_across_row_groups_and_batches(tmp_path: Path) -> None:
    rows = [{"text": f"row {number} " + "x" * (number % 7) * 1_000} for number in range(3_000)]
    rows[1_234]["text"] = ""
    version = process(tmp_path, parquet(rows, row_group_size=700), near_dedup=None)
    assert [row["line"] for row in version.rows] == [number for number in range(1, 3_001) if number != 1_235]
    assert [row["text"] for row in version.rows] == [row["text"] for row in rows if row["text"]]
    assert version.why == [(1_235, "TOO_SHORT")]


def test_columns_are_mapped_and_named_as_elsewhere(tmp_path: Path) -> None:
    data = parquet([{"q.x": "p", "b": "c", "who": 7, "n": 1.5}])
    version = process(tmp_path / "1", data, columns={"prompt": "q.x", "completion": "b", "group": "who"})
    assert [(row["prompt"], row["completion"], row["group"]) for row in version.rows] == [("p", "c", "7")]
    assert refused(tmp_path / "2", data, columns={"text": "z"}).message == (
        "There is no column 'z'. There are 'q.x', 'b', 'who', 'n'."
    )
    assert refused(tmp_path / "3", data).code == "COLUMNS_NOT_RECOGNISED"


def test_a_mapped_column_of_nulls_is_there(tmp_path: Path) -> None:
    data = parquet(pa.table({"text": ["a"], "who": pa.array([None], pa.string())}))
    assert process(tmp_path, data, columns={"group": "who"}).rows[0]["group"] is None


def _footer_cut(data: bytes) -> bytes:
    return data[:-20]


def _page_damaged(data: bytes) -> bytes:
    return data[:60] + bytes(255 - byte for byte in data[60:90]) + data[90:]


def _footer_damaged(data: bytes) -> bytes:
    return data[:-100] + bytes(80) + data[-20:]


def _footer_lies_about_its_length(data: bytes) -> bytes:
    return data[:-8] + struct.pack("<L", 2**32 - 1) + b"PAR1"


NOISE = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(20))
WIDE = pa.table({f"c{number}": [1] for number in range(1_001)})
DEEP = {"text": "a", "x": json.loads("[" * 60 + "1" + "]" * 60)}


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (_footer_cut(parquet([PAIR])), "PARQUET_UNREADABLE", "upload it again"),
        (parquet([PAIR])[:9], "PARQUET_UNREADABLE", "too short"),
        (b"PAR1" + bytes(100), "PARQUET_UNREADABLE", "footer is missing"),
        (_footer_damaged(parquet([PAIR])), "PARQUET_UNREADABLE", "damaged"),
        (_footer_lies_about_its_length(parquet([PAIR])), "PARQUET_UNREADABLE", "footer is missing"),
        (_page_damaged(parquet([{"text": NOISE}], write_page_checksum=True)), "PARQUET_UNREADABLE", "damaged"),
        (parquet(WIDE), "TOO_MANY_COLUMNS", "1,001 columns; at most 1,000"),
        (parquet(pa.table([["a"], ["b"]], ["text", "text"])), "DUPLICATE_COLUMN", "'text'"),
        (parquet([DEEP]), "PARQUET_UNREADABLE", "damaged"),
        (parquet(pa.table({"text": pa.array([], pa.string())})), "NO_USABLE_ROWS", "no rows"),
        (parquet(pa.table({})), "NO_USABLE_ROWS", "no rows"),
    ],
)
def test_what_cannot_be_read_is_a_typed_error(tmp_path: Path, data: bytes, code: str, says: str) -> None:
    error = refused(tmp_path, data)
    assert error.code == code
    assert says in error.message
    assert len(error.message) < 400


def test_damage_anywhere_is_never_a_crash_nor_a_silent_loss(tmp_path: Path) -> None:
    rows = [{"text": f"row {number}"} for number in range(50)]
    data = parquet(rows, compression="none", write_page_checksum=True)
    for place in range(4, len(data), len(data) // 25):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        with suppress(ChildError):  # and nothing else
            version = process(tmp_path / str(place), bytes(damaged), near_dedup=None)
            assert [row["text"] for row in version.rows] == [row["text"] for row in rows]


def test_a_footer_of_a_million_columns_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"PAR1" + bytes(parquet_reader.MAX_FOOTER_BYTES + 1)
    data += struct.pack("<L", parquet_reader.MAX_FOOTER_BYTES + 1) + b"PAR1"
    assert refused(tmp_path, data).code == "PARQUET_TOO_COSTLY"


def test_equal_rows_are_a_bomb_only_beyond_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FREE_BYTES", 1 << 20)
    few = parquet(pa.table({"text": ["x" * 1_000] * 1_000}))
    assert len(few) * 100 < 1_000_000
    assert process(tmp_path / "few", few).result["rows_kept"] == 1
    many = parquet(pa.table({"text": ["x" * 1_000] * 1_100}))
    assert refused(tmp_path / "many", many).code == "PARQUET_BOMB"


def test_rows_of_nothing_are_counted_as_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "FREE_BYTES", 1 << 18)
    data = parquet(pa.table({"text": pa.nulls(20_000, pa.string())}))
    assert refused(tmp_path, data).code == "PARQUET_BOMB"


def test_a_page_that_unpacks_too_far_ends_only_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "reader.py"
    code = Path(parquet_reader.__file__).read_text()
    script.write_text(code.replace("MAX_MEMORY_BYTES = 192 << 20", "MAX_MEMORY_BYTES = 32 << 20"))
    monkeypatch.setattr(parquet_reader, "__file__", str(script))
    for name, size, code in (("fits", 4 << 20, "NO_USABLE_ROWS"), ("does not", 40 << 20, "PARQUET_TOO_COSTLY")):
        page = parquet(pa.table({"text": ["x" * size]}), compression="zstd", use_dictionary=False)
        assert refused(tmp_path / name, page).code == code


def test_a_reader_that_dies_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "reader.py"
    script.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(parquet_reader, "__file__", str(script))
    assert refused(tmp_path / "run", parquet([PAIR])).code == "PARQUET_TOO_COSTLY"


def test_a_reader_that_takes_too_long_is_a_typed_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "reader.py"
    script.write_text(Path(parquet_reader.__file__).read_text().replace("    main(", "    while True: pass\n    main("))
    monkeypatch.setattr(parquet_reader, "__file__", str(script))
    monkeypatch.setattr(parquet_file, "BASE_CPU_SECONDS", 1)
    error = refused(tmp_path / "run", parquet([PAIR]))
    assert error.code == "PARQUET_TOO_COSTLY"
    assert "1 s" in error.message
