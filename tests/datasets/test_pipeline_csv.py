"""Tables as programs write them: which encoding and which dialect is recognised, and told."""

from __future__ import annotations

import codecs
import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest

from datasets.pipeline.reading import encoding
from datasets.pipeline.reading.csv_dialect import Dialect, sniff
from tests.datasets.pipelines import Version, process, refused, zipped

TABLE = "prompt,completion\nVoil\u00e0 \u2019t,caf\u00e9\nq,d\n"
KEPT = [("Voil\u00e0 \u2019t", "caf\u00e9"), ("q", "d")]


def told(version: Version) -> list[str]:
    lines = [event["text"] for event in version.events if event["kind"] == "LogLine"]
    return [line for line in lines if line.startswith("Read as CSV")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (TABLE.encode(), "UTF-8"),
        (codecs.BOM_UTF8 + TABLE.encode(), "UTF-8"),
        (TABLE.encode("utf-16"), "UTF-16"),
        (codecs.BOM_UTF16_BE + TABLE.encode("utf-16-be"), "UTF-16"),
        (TABLE.encode("utf-16-le"), "UTF-16"),
        (TABLE.encode("utf-16-be"), "UTF-16"),
        (TABLE.encode("utf-32"), "UTF-32"),
        (codecs.BOM_UTF32_BE + TABLE.encode("utf-32-be"), "UTF-32"),
        (TABLE.encode("utf-32-le"), "UTF-32"),
        (TABLE.encode("utf-32-be"), "UTF-32"),
        (TABLE.encode("cp1252"), "Windows-1252"),
        (TABLE.replace("\n", "\r\n").encode("utf-16"), "UTF-16"),
    ],
)
def test_the_encoding_is_recognised_and_told(tmp_path: Path, data: bytes, words: str) -> None:
    version = process(tmp_path, data, "d.csv")
    assert [(row["prompt"], row["completion"]) for row in version.rows] == KEPT
    assert told(version) == [f"Read as CSV: commas, {words}."]
    assert not (tmp_path / "table").exists()


def test_latin_1_has_what_windows_1252_leaves_undefined(tmp_path: Path) -> None:
    version = process(tmp_path, "text\ncaf\u00e9 \x81\n".encode("latin-1"), "d.csv")
    assert told(version) == ["Read as CSV: commas, Latin-1."]
    assert [row["text"] for row in version.rows] == ["caf\u00e9 "]  # a control character, which cleaning removes


def test_a_few_bytes_that_are_no_utf_8_cost_their_rows_alone(tmp_path: Path) -> None:
    rows = ["text", *(f"caf\u00e9 {number}" for number in range(20))]
    data = "\n".join(rows).encode() + b"\ncaf\xe9 at last\n"
    version = process(tmp_path, data, "d.csv", near_dedup=None)
    assert told(version) == ["Read as CSV: commas, UTF-8."]
    assert version.why == [(22, "NOT_UTF8")]
    assert version.result["rows_kept"] == 20


def test_an_encoding_is_seen_at_the_end_of_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "PIECE_BYTES", 101)
    ascii_only = "".join(f"row {number}\n" for number in range(1_000))
    path = tmp_path / "table"
    path.write_bytes(f"text\n{ascii_only}caf\u00e9\n".encode("cp1252"))
    assert encoding.encoding_of(path).words == "Windows-1252"
    path.write_bytes(f"text\n{ascii_only}caf\u00e9 \ufffd \u4e2d\n".encode())
    assert encoding.encoding_of(path).words == "UTF-8"


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_what_is_wrong_in_utf_16_costs_its_row_alone(tmp_path: Path, codec: str) -> None:
    table = "text\nalpha\nbe\ud800ta\ngamma\nlong enough to be seen as what it is\n".encode(codec, "surrogatepass")
    version = process(tmp_path, table + b"\x00", "d.csv")
    assert [row["text"] for row in version.rows][:2] == ["alpha", "gamma"]
    assert version.why == [(3, "NOT_UTF8"), (6, "NOT_UTF8")]


@pytest.mark.parametrize(
    ("data", "declared", "code"),
    [
        ('{"text": "a"}\n{"text": "b"}\n'.encode("utf-16"), "AUTO", "NOT_UTF8"),
        ('{"text": "a"}\n{"text": "b"}\n'.encode("utf-32-le"), "JSONL", "NOT_UTF8"),
        ("def f(x):\n    'Doc.'\n    return x\n".encode("utf-16"), "AUTO", "NOT_UTF8"),
        (bytes(range(256)) * 20, "CSV", "FORMAT_MISMATCH"),
        (b"\x89\x93" * 4_000, "AUTO", "FORMAT_UNKNOWN"),
    ],
)
def test_json_is_utf_8_and_what_is_no_text_stays_refused(tmp_path: Path, data: bytes, declared: str, code: str) -> None:
    assert refused(tmp_path, data, "d.csv", format=declared).code == code


def written(delimiter: str, quote: str, doubled: bool, rows: list[tuple[str, str]]) -> str:
    out = io.StringIO()
    escape = None if doubled else "\\"
    writer = csv.writer(
        out, delimiter=delimiter, quotechar=quote, doublequote=doubled, escapechar=escape, lineterminator="\n"
    )
    writer.writerows(rows)
    return out.getvalue()


@pytest.mark.parametrize(("delimiter", "name"), [(",", "commas"), (";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("doubled", [True, False])
def test_what_the_csv_module_writes_is_read(
    tmp_path: Path, delimiter: str, name: str, quote: str, doubled: bool
) -> None:
    rows = [
        (f"say {quote}hi{quote}{delimiter} twice", "a\nb"),
        (f"x{delimiter}y", f"{quote}quoted{quote}"),
        ("plain", "C:\\new\\table"),
        (f"{quote}", f"print({quote}\\n{quote}){delimiter} {quote * 2}"),
    ]
    version = process(tmp_path, written(delimiter, quote, doubled, [("prompt", "completion"), *rows]), "d.csv")
    assert [(row["prompt"], row["completion"]) for row in version.rows] == rows
    words = name + (", single quotes" if quote == "'" else "") + ("" if doubled else ", quotes after a backslash")
    assert told(version) == [f"Read as CSV: {words}, UTF-8."]


@pytest.mark.parametrize(
    ("head", "dialect", "header"),
    [
        ("prompt,completion\nit's,fine\n", Dialect(), ["prompt", "completion"]),
        ("a;b;c\n1;2,5;3\n", Dialect(";"), ["a", "b", "c"]),
        ('prompt,completion\n"C:\\dir\\","x"\n', Dialect(), ["prompt", "completion"]),
        ('prompt,completion\n"a \\" b",c\nq,d\n', Dialect(has_escapes=True), ["prompt", "completion"]),
        ("'prompt','completion'\n'a, b','c'\n", Dialect(quote="'"), ["prompt", "completion"]),
        ('prompt,completion\n"never closed,c\nq,d\nr,e\n', Dialect(), ["prompt", "completion"]),
        ('prompt,completion\n"a"b,c\nq,d\n', Dialect(), ["prompt", "completion"]),
        ("", Dialect(), []),
    ],
)
def test_the_dialect_by_the_first_lines(head: str, dialect: Dialect, header: list[str]) -> None:
    assert sniff(head.encode()) == (dialect, header)


def test_escapes_of_code_are_kept_where_quotes_are_escaped(tmp_path: Path) -> None:
    """Programs that write \\" do not all double other backslashes."""
    version = process(tmp_path, 'prompt,completion\n"say \\"hi\\"","a\\nb \\\\ c\\d\\"e\\""\n', "d.csv")
    assert [(row["prompt"], row["completion"]) for row in version.rows] == [('say "hi"', 'a\\nb \\ c\\d"e"')]


def test_a_broken_quote_costs_its_row_in_each_dialect(tmp_path: Path) -> None:
    data = "prompt;completion\n'a; b';c\n'never closed;c\nq;d\n'x'y;z\n'it''s';e\n"
    version = process(tmp_path, data, "d.csv")
    assert [(row["prompt"], row["completion"]) for row in version.rows] == [("a; b", "c"), ("q", "d"), ("it's", "e")]
    assert version.why == [(3, "BAD_QUOTES"), (5, "BAD_QUOTES")]


def test_each_table_of_a_zip_has_its_own_dialect_and_encoding(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "a.csv": TABLE,
        "b.csv": TABLE.replace(",", ";").replace("q", "r").encode("utf-16"),
        "c.csv": "prompt,completion\ncaf\u00e9,e\n".encode("cp1252"),
    }
    version = process(tmp_path, zipped(members))
    assert [(row["source"], row["prompt"]) for row in version.rows if row["completion"] != "caf\u00e9"] == [
        ("a.csv", "q"),
        ("b.csv", "r"),
        ("c.csv", "caf\u00e9"),
    ]
    assert told(version) == [
        "Read as CSV: commas, UTF-8.",
        "Read as CSV: semicolons, UTF-16.",
        "Read as CSV: commas, Windows-1252.",
    ]


def test_a_packed_table_is_unpacked_before_its_encoding_is_seen(tmp_path: Path) -> None:
    version = process(tmp_path, pa.compress(TABLE.encode("cp1252"), codec="gzip", asbytes=True), "d.csv.gz")
    assert [(row["prompt"], row["completion"]) for row in version.rows] == KEPT


def test_a_mapped_column_is_found_by_its_name_in_an_old_encoding(tmp_path: Path) -> None:
    data = "id\u00e9e;r\u00e9ponse\np;c\n".encode("cp1252")
    version = process(tmp_path, data, "data", columns={"prompt": "id\u00e9e", "completion": "r\u00e9ponse"})
    assert [(row["prompt"], row["completion"]) for row in version.rows] == [("p", "c")]
