from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import pytest

from datasets.pipeline.reading import csv_file, csv_lines
from tests.datasets.pipelines import lines, parquet, process, refused, zipped

GOOD = {"prompt": "p", "completion": "c"}
PYTHON = 'def f(x):\n    """Doc."""\n    return x\n'
TABLE = "prompt,completion\np,c\n"


@pytest.mark.parametrize(
    ("data", "file_name", "found"),
    [
        (lines(GOOD, GOOD), "data", "JSONL"),
        (lines(GOOD, GOOD), "wrong.csv", "JSONL"),
        (lines(GOOD), "one.jsonl", "JSONL"),
        (lines(GOOD), "one.json", "JSON"),
        (lines("broken", GOOD, GOOD), "data", "JSONL"),
        (lines("broken", "broken", GOOD), "data.jsonl", "JSONL"),
        (lines('{"prompt": "cut', GOOD, GOOD), "data", "JSONL"),
        (json.dumps([GOOD]), "data", "JSON"),
        (json.dumps([GOOD, GOOD], indent=1), "data.jsonl", "JSON"),
        ("[\n" + json.dumps(GOOD) + ",\n" + json.dumps(GOOD) + "\n]", "data", "JSON"),
        (json.dumps({"data": [GOOD]}), "data", "JSON"),
        (json.dumps(GOOD, indent=2), "data", "JSON"),
        (TABLE, "data", "CSV"),
        (TABLE, "wrong.py", "CSV"),
        ("prompt\tcompletion\np\tc\n", "data", "CSV"),
        ("text\nhello\n", "data", "CSV"),
        (PYTHON, "data", "PYTHON"),
        (PYTHON, "wrong.csv", "PYTHON"),
        ("\ufeff" + PYTHON, "m.py", "PYTHON"),
        (zipped({"a.py": PYTHON}), "data", "PYTHON"),
        (parquet([GOOD]), "wrong.csv", "PARQUET"),
    ],
)
def test_the_content_tells_the_format(tmp_path: Path, data: bytes | str, file_name: str, found: str) -> None:
    version = process(tmp_path, data, file_name)
    assert version.result["format"] == found
    assert version.result["rows_kept"] == 1


@pytest.mark.parametrize(
    ("data", "chosen", "code", "says"),
    [
        (b"", "AUTO", "EMPTY_FILE", "empty"),
        (b"\xef\xbb\xbf \n\n", "JSONL", "EMPTY_FILE", "empty"),
        (lines(GOOD).encode("utf-16"), "AUTO", "NOT_UTF8", "UTF-16"),
        (lines(GOOD, GOOD).encode("utf-16-le"), "JSONL", "NOT_UTF8", "Save it as UTF-8"),
        (lines(GOOD, GOOD).encode("utf-16-be"), "CSV", "NOT_UTF8", "UTF-16"),
        (bz2.compress(lines(GOOD).encode()), "AUTO", "FORMAT_UNKNOWN", "a bzip2 file"),
        (gzip.compress(lines(GOOD, GOOD).encode(), mtime=0), "JSON", "FORMAT_MISMATCH", "JSON Lines"),
        (bytes(range(256)) * 20, "AUTO", "FORMAT_UNKNOWN", "binary data"),
        ("Dear Sir or Madam", "AUTO", "FORMAT_UNKNOWN", "Dear Sir"),
        (zipped({"a.txt": TABLE}), "AUTO", "FORMAT_UNKNOWN", "1 other files (such as a.txt)"),
        (zipped({"a.txt": TABLE}), "PYTHON", "FORMAT_MISMATCH", "a zip archive that holds neither"),
        (zipped({}), "AUTO", "FORMAT_UNKNOWN", "neither Python source nor data"),
        (zipped({"a.py": PYTHON}), "JSONL", "FORMAT_MISMATCH", "a zip archive"),
        (lines(GOOD, GOOD), "JSON", "FORMAT_MISMATCH", "JSON Lines"),
        (json.dumps([GOOD]), "JSONL", "FORMAT_MISMATCH", "one JSON document"),
        (json.dumps([GOOD]), "PYTHON", "FORMAT_MISMATCH", "one JSON document"),
        (lines(GOOD, GOOD), "CSV", "FORMAT_MISMATCH", "JSON Lines"),
        (TABLE, "JSONL", "FORMAT_MISMATCH", "a table"),
        (PYTHON, "JSON", "FORMAT_MISMATCH", "Python source"),
        (parquet([GOOD]), "JSONL", "FORMAT_MISMATCH", "set format to AUTO or PARQUET"),
        (TABLE, "PARQUET", "FORMAT_MISMATCH", "a table"),
        (TABLE, "PYTHON", "NO_USABLE_ROWS", "no function"),
        ("prompt,completion\n", "AUTO", "NO_USABLE_ROWS", "no rows"),
        ("[]", "AUTO", "NO_USABLE_ROWS", "no rows"),
        (lines("{oops}", "{oops}", {"prompt": "p"}), "JSONL", "COLUMNS_NOT_RECOGNISED", "'prompt'"),
        (
            lines("{oops}", "{oops}"),
            "AUTO",
            "NO_USABLE_ROWS",
            "None of the 2 rows can be used: 2 x NOT_JSON (first in line 1)",
        ),
        (json.dumps({"a": [GOOD], "b": [GOOD]}), "AUTO", "FORMAT_MISMATCH", "(a, b)"),
        ("prompt,prompt\na,b\n", "CSV", "DUPLICATE_COLUMN", "'prompt'"),
        ("prompt,completion" + ",x" * 400_000 + "\n", "CSV", "TOO_MANY_COLUMNS", "400,002"),
    ],
)
def test_what_cannot_be_used_says_what_was_seen_and_what_to_do(
    tmp_path: Path, data: bytes | str, chosen: str, code: str, says: str
) -> None:
    error = refused(tmp_path, data, format=chosen)
    assert error.code == code
    assert says in error.message
    assert len(error.message) < 600


def test_no_usable_row_gives_the_top_reasons(tmp_path: Path) -> None:
    data = lines({"prompt": "p", "completion": 1}, "{", "{", {"prompt": "", "completion": "c"})
    assert refused(tmp_path, data, "rows.jsonl").message == (
        "None of the 4 rows can be used: 2 x NOT_JSON (first in line 2); "
        "1 x TOO_SHORT (first in line 4, field prompt); 1 x WRONG_TYPE (first in line 1, field completion)."
    )


@pytest.mark.parametrize(
    ("data", "kept", "why"),
    [
        ('[{"text": "a"}, {"text": "b"}]', ["a", "b"], []),
        ('\ufeff {"meta": {"n": [1]}, "data": [{"text": "a"}, {"text": "b"}], "more": 1}', ["a", "b"], []),
        ('[{"text": "]}\\""}, {"text": "{["}]', [']}"', "{["], []),
        ('[\n{"text": "a"},\n{text: "b"},\n{"text": "c"}\n]', ["a", "c"], [(3, "NOT_JSON")]),
        (
            '[{"text": "a"},\n 3, "x",\n [1, 2], null, {"text": "c"}]',
            ["a", "c"],
            [(2, "NOT_AN_OBJECT")] * 2 + [(3, "NOT_AN_OBJECT")] * 2,
        ),
        ('[{"text": "a"},\n{"text": "a", "text": "b"}]', ["a"], [(2, "DUPLICATE_KEY")]),
        ('[{"text": "a"},\n{"text": "b", "x": NaN}]', ["a"], [(2, "NOT_FINITE")]),
        (
            '[{"text": "a"},\n{"text": "b", "x": ' + "[" * 1000 + "]" * 1000 + '}, {"text": "c"}]',
            ["a", "c"],
            [(2, "NESTED_TOO_DEEP")],
        ),
        ('[{"text": "a"},\n{"text": "' + "b" * 1_000_000 + '"},\n{"text": "c"}]', ["a", "c"], [(2, "LINE_TOO_LONG")]),
        ('[{"text": "a"},\n{"text": "b"}', ["a", "b"], []),  # cut off after a whole row
        ('[{"text": "a"},\n{"text": "b', ["a"], [(2, "NOT_JSON")]),
        ('[{"text": "a"}]\nand more', ["a"], [(2, "NOT_JSON")]),
        ('[{"text": "a"}, {"text": "a"}]', ["a"], [(1, "DUPLICATE")]),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', [None], []),
        (b'[{"text": "a"},\n{"text": "\xff"}]', ["a"], [(2, "NOT_UTF8")]),
    ],
)
def test_json_documents(tmp_path: Path, data: str | bytes, kept: list[str | None], why: list[tuple[int, str]]) -> None:
    version = process(tmp_path, data, "d.json")
    assert version.result["format"] == "JSON"
    assert [row["text"] for row in version.rows] == kept
    assert version.why == why


@pytest.mark.parametrize(
    ("data", "kept", "why"),
    [
        ("prompt,completion\r\np,c\r\n", [("p", "c")], []),
        ("\ufeffprompt;completion\np;c, d\n", [("p", "c, d")], []),
        ("id\tprompt\tcompletion\n1\tp\tc\n", [("p", "c")], []),
        ("prompt|completion\np|c\n", [("p", "c")], []),
        ('prompt,completion\n"a\nb","c ""d"""\nq,e\n', [("a\nb", 'c "d"'), ("q", "e")], []),
        ("prompt,completion\np,c,x\nq\n\nr,d\n", [("r", "d")], [(2, "WRONG_FIELD_COUNT"), (3, "WRONG_FIELD_COUNT")]),
        ('prompt,completion\n"never closed,c\nq,d\nr,e\n', [("q", "d"), ("r", "e")], [(2, "BAD_QUOTES")]),
        ('prompt,completion\n"a"b,c\nq,d\n', [("q", "d")], [(2, "BAD_QUOTES")]),
        (b"prompt,completion\ncaf\xe9,c\nq\xc3\xa9,d\n", [("q\u00e9", "d")], [(2, "NOT_UTF8")]),
        ("prompt,completion\na\0b,c\nq,d\n", [("q", "d")], [(2, "NUL_CHARACTER")]),
        ("prompt,completion\n,c\np,\nq,d\n", [("q", "d")], [(2, "TOO_SHORT"), (3, "TOO_SHORT")]),
        ("prompt,completion\np," + "c" * 1_000_000 + "\nq,d\n", [("q", "d")], [(2, "LINE_TOO_LONG")]),
        ("prompt,completion\np,c\np,c\n", [("p", "c")], [(3, "DUPLICATE")]),
    ],
)
def test_csv(tmp_path: Path, data: str | bytes, kept: list[tuple[str, str]], why: list[tuple[int, str]]) -> None:
    version = process(tmp_path, data, "d.csv")
    assert version.result["format"] == "CSV"
    assert [(row["prompt"], row["completion"]) for row in version.rows] == kept
    assert version.why == why


def test_a_csv_record_beyond_the_limit_gives_its_lines_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (csv_file, csv_lines):
        monkeypatch.setattr(module, "MAX_LINE_BYTES", 1_000)
    version = process(
        tmp_path, 'prompt,completion\np,"' + "c,d\n" * 600 + 'e"\nq,d\n', "d.csv", exact_dedup=False, near_dedup=None
    )
    assert [row["line"] for row in version.rows] == [*range(3, 602), 603]
    assert version.why == [(2, "BAD_QUOTES"), (602, "WRONG_FIELD_COUNT")]


def test_a_quoted_record_may_lie_across_two_batches(tmp_path: Path) -> None:
    filler = "".join(f"p{number},{'c' * 1_000}\n" for number in range(4_193))
    long = "line\n" * 20_000
    version = process(tmp_path, f'prompt,completion\n{filler}p,"{long}"\nq,d\n', "d.csv")
    assert version.result["rows_kept"] == 4_195
    assert version.rows[-2]["completion"] == long
    assert version.rows[-1]["line"] == 1 + 4_193 + 20_001 + 1
