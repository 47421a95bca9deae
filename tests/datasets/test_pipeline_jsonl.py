from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.datasets.pipelines import lines, process, refused

GOOD = {"prompt": "p", "completion": "c"}


@pytest.mark.parametrize(
    ("line", "reason", "field"),
    [
        (b"not json", "NOT_JSON", None),
        (b'{"prompt": "p", "completion": ', "NOT_JSON", None),
        (b'{"prompt": "p", "completion": "a\tb"}', "NOT_JSON", None),  # a bare control character
        (b'{"prompt": "p"} {}', "NOT_JSON", None),
        (b"[1, 2]", "NOT_AN_OBJECT", None),
        (b"3", "NOT_AN_OBJECT", None),
        (b"null", "NOT_AN_OBJECT", None),
        (b'{"prompt": "p", "completion": "\xff"}', "NOT_UTF8", None),
        ('{"prompt": "ä", "completion": "c"}'.encode("latin-1"), "NOT_UTF8", None),
        (b'{"prompt": "\xed\xa0\x80", "completion": "c"}', "NOT_UTF8", None),  # a surrogate, encoded
        (b'{"prompt": "a\\u0000b", "completion": "c"}', "NUL_CHARACTER", "prompt"),
        (b'{"prompt": "p\0", "completion": "c"}', "NOT_JSON", None),
        (b'{"prompt": "\\ud800", "completion": "c"}', "LONE_SURROGATE", "prompt"),
        (b'{"prompt": "p", "completion": "c", "x": [{"y": "\\uDFFF"}]}', "LONE_SURROGATE", "x"),
        (b'{"prompt": "p", "completion": "c", "x": NaN}', "NOT_FINITE", None),
        (b'{"prompt": "p", "completion": "c", "x": -Infinity}', "NOT_FINITE", None),
        (b'{"prompt": "p", "completion": "c", "x": 1e999}', "NOT_FINITE", None),
        (b'{"prompt": "p", "prompt": "q", "completion": "c"}', "DUPLICATE_KEY", "prompt"),
        (b'{"prompt": "p", "completion": "c", "x": {"y": 1, "y": 1}}', "DUPLICATE_KEY", "y"),
        (b'{"prompt": "p", "completion": "c", "x": ' + b"[" * 1000 + b"]" * 1000 + b"}", "NESTED_TOO_DEEP", None),
        (
            b'{"prompt": "p", "completion": "c", "x": ' + b'{"a":' * 90_000 + b"1" + b"}" * 90_001,
            "NESTED_TOO_DEEP",
            None,
        ),
        (b'{"prompt": "p", "completion": "c", "x": ' + b"9" * 5_000 + b"}", "NUMBER_TOO_LONG", None),
        (b'{"prompt": "p", "completion": "' + b"c" * 1_000_000 + b'"}', "LINE_TOO_LONG", None),
        (b'{"prompt": "p"}', "MISSING_FIELD", "completion"),
        (b'{"prompt": "p", "completion": null}', "MISSING_FIELD", "completion"),
        (b"{}", "MISSING_FIELD", "prompt"),
        (b'{"prompt": "p", "completion": 3}', "WRONG_TYPE", "completion"),
        (b'{"prompt": ["p"], "completion": "c"}', "WRONG_TYPE", "prompt"),
        (b'{"prompt": "p", "completion": ""}', "TOO_SHORT", "completion"),
        (b'{"prompt": "p", "completion": " \\n "}', "TOO_SHORT", "completion"),
        (b'{"prompt": " ", "completion": "c"}', "TOO_SHORT", "prompt"),
        (b'{"prompt": "' + b"p" * 200_000 + b'", "completion": "c"}', "TOO_LONG", "prompt"),
        (b'{"prompt": "p", "completion": "c"}', "DUPLICATE", None),
    ],
)
def test_a_broken_line_is_rejected_with_its_place_and_the_good_ones_are_kept(
    tmp_path: Path, line: bytes, reason: str, field: str | None
) -> None:
    before, after = json.dumps(GOOD).encode(), b'{"prompt": "last", "completion": "row"}'
    version = process(tmp_path, before + b"\n\n" + line + b"\r\n" + after, "rows.jsonl")
    assert [(row["line"], row["prompt"], row["completion"]) for row in version.rows] == [
        (1, "p", "c"),
        (4, "last", "row"),
    ]
    [rejection] = version.rejections
    assert (rejection["line"], rejection["reason"], rejection["field"]) == (3, reason, field)
    assert 0 < len(rejection["excerpt"].encode()) <= 300
    assert "\0" not in rejection["excerpt"]


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        ({"question": "q", "answer": "a"}, {"prompt": "q", "completion": "a"}),
        ({"Prompt": "q", "Response": "a"}, {"prompt": "q", "completion": "a"}),
        ({"instruction": "i", "output": "o"}, {"prompt": "i", "completion": "o"}),
        ({"instruction": "i", "input": "", "output": "o"}, {"prompt": "i", "completion": "o"}),
        ({"instruction": "i", "input": "x", "output": "o"}, {"prompt": "i\n\nx", "completion": "o"}),
        ({"input": "i", "output": "o"}, {"prompt": "i", "completion": "o"}),
        ({"text": "t", "id": 7}, {"text": "t"}),
        ({"content": "t"}, {"text": "t"}),
        ({"code": "x = 1", "group": "a.py"}, {"text": "x = 1", "group": "a.py"}),
        ({"text": "t", "group": 3}, {"text": "t", "group": "3"}),
        (
            {"messages": [{"role": "user", "content": "hi", "name": "Al"}, {"role": "assistant", "content": "ho"}]},
            {"messages": '[{"role":"user","content":"hi"},{"role":"assistant","content":"ho"}]'},
        ),
        (
            {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hö"}]},
            {"messages": '[{"role":"user","content":"hi"},{"role":"assistant","content":"hö"}]'},
        ),
        ({"messages": '[{"role":"assistant","content":"a"}]'}, {"messages": '[{"role":"assistant","content":"a"}]'}),
    ],
)
def test_shapes_are_recognised_by_their_names(tmp_path: Path, row: dict[str, Any], kept: dict[str, str]) -> None:
    empty = dict.fromkeys(("prompt", "completion", "text", "messages", "group", "source"))
    version = process(tmp_path, lines(row, row))
    (seen,) = version.rows
    assert seen.items() >= {**empty, **kept, "line": 1}.items()
    assert version.why == [(2, "DUPLICATE")]


@pytest.mark.parametrize(
    ("messages", "reason", "field"),
    [
        ("not a list", "NOT_JSON", None),
        ({}, "WRONG_TYPE", "messages"),
        ([], "NO_ANSWER", "messages"),
        ([{"role": "user", "content": "hi"}], "NO_ANSWER", "messages"),
        ([{"role": "assistant", "content": " "}], "NO_ANSWER", "messages"),
        (["hi"], "WRONG_TYPE", "messages[0]"),
        ([{"role": "assistant"}], "MISSING_FIELD", "messages[0].content"),
        ([{"role": "king", "content": "hi"}], "WRONG_TYPE", "messages[0].role"),
        ([{"from": "gpt", "value": 5}], "WRONG_TYPE", "messages[0].value"),
    ],
)
def test_a_chat_that_cannot_be_learned_from_is_rejected(
    tmp_path: Path, messages: Any, reason: str, field: str | None
) -> None:
    good = {"messages": [{"role": "assistant", "content": "a"}]}
    version = process(tmp_path, lines(good, {"messages": messages}))
    assert version.result["rows_kept"] == 1
    [rejection] = version.rejections
    assert (rejection["line"], rejection["reason"], rejection["field"]) == (2, reason, field)


def test_a_mapping_wins_over_recognition(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c", "ask": "q", "tell": "t", "who": "g"}
    version = process(tmp_path, lines(row), columns={"prompt": "ask", "completion": "tell", "group": "who"})
    assert [(row["prompt"], row["completion"], row["group"]) for row in version.rows] == [("q", "t", "g")]
    assert version.result["columns"] == {"prompt": "ask", "completion": "tell", "group": "who"}


def test_half_a_mapping_is_completed_by_recognition(tmp_path: Path) -> None:
    version = process(tmp_path, lines({"ask": "q", "answer": "a"}), columns={"prompt": "ask"})
    assert version.result["columns"] == {"prompt": "ask", "completion": "answer"}


def test_columns_that_do_not_exist_are_named_beside_those_that_do(tmp_path: Path) -> None:
    error = refused(tmp_path, lines({"ask": "q", "answer": "a"}), columns={"text": "body"})
    assert error.code == "COLUMN_UNKNOWN"
    assert error.message == "There is no column 'body'. There are 'ask', 'answer'."


def test_columns_of_no_known_name_ask_for_a_mapping(tmp_path: Path) -> None:
    error = refused(tmp_path, lines({"foo": "q", "bar": "a"}))
    assert error.code == "COLUMNS_NOT_RECOGNISED"
    assert "'foo', 'bar'" in error.message


def test_the_shape_that_most_rows_have_is_taken(tmp_path: Path) -> None:
    version = process(tmp_path, lines({"text": "t"}, GOOD, {"prompt": "q", "completion": "d"}))
    assert version.result["columns"] == {"prompt": "prompt", "completion": "completion"}
    assert version.why == [(1, "MISSING_FIELD")]


def test_lengths_are_the_recipes(tmp_path: Path) -> None:
    rows = [{"text": "x" * size} for size in (2, 3, 4, 5)]
    version = process(tmp_path, lines(*rows), min_characters=3, max_characters=4)
    assert [row["text"] for row in version.rows] == ["xxx", "xxxx"]
    assert version.why == [(1, "TOO_SHORT"), (4, "TOO_LONG")]


def test_a_line_of_any_length_costs_no_memory_and_no_neighbour(tmp_path: Path) -> None:
    data = lines(GOOD).encode() + b"x" * 12_000_000 + b"\n" + lines({"prompt": "q", "completion": "d"}).encode()
    version = process(tmp_path, data)
    assert [row["line"] for row in version.rows] == [1, 3]
    assert version.why == [(2, "LINE_TOO_LONG")]


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    assert process(tmp_path, b"\xef\xbb\xbf" + lines(GOOD).encode()).result["rows_kept"] == 1
