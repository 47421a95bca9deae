"""Uploads packed by gzip, zstd, or zip are unpacked under limits; one that is not whole is an error that says where."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest

from common.child import ChildError
from datasets.pipeline.reading import allowance, compressed
from tests.datasets.pipelines import Version, lines, parquet, process, refused, zipped

GOOD = {"prompt": "p", "completion": "c"}
ROWS = [{"text": f"row {number}"} for number in range(2_000)]
MANY = lines(*ROWS).encode()
PYTHON = b'def f(x):\n    """Doc."""\n    return x\n'


def gz(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def zst(data: bytes) -> bytes:
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


@pytest.mark.parametrize("pack", [gz, zst])
@pytest.mark.parametrize(
    ("data", "file_name", "found"),
    [
        (MANY, "rows.jsonl", "JSONL"),
        (lines(ROWS[0]).encode(), "one.jsonl", "JSONL"),
        (lines(ROWS[0]).encode(), "one.json", "JSON"),
        (b'[{"text": "a"},\n{"text": "b"}]', "rows.json", "JSON"),
        (b"prompt,completion\np,c\n", "rows.csv", "CSV"),
        (parquet([GOOD]), "rows.parquet", "PARQUET"),
        (PYTHON, "m.py", "PYTHON"),
    ],
)
def test_a_packed_file_gives_what_it_holds(tmp_path: Path, pack: type, data: bytes, file_name: str, found: str) -> None:
    suffix = ".gz" if pack is gz else ".ZST"
    plain = process(tmp_path / "plain", data, file_name, near_dedup=None)
    version = process(tmp_path / "packed", pack(data), file_name + suffix, near_dedup=None)
    assert version.result["format"] == plain.result["format"] == found
    assert version.rows_alone == plain.rows_alone
    assert version.why == plain.why
    packed = pack(data)
    assert f"Unpacked {len(packed):,} bytes of {'gzip' if pack is gz else 'zstd'} to {len(data):,}." in _told(version)
    assert not (tmp_path / "packed" / "unpacked").exists()


def _told(version: Version) -> list[str]:
    return [event["text"] for event in version.events if event["kind"] == "LogLine"]


@pytest.mark.parametrize(
    "data",
    [gz(MANY[:9_990]) + gz(MANY[9_990:]), gz(MANY) + gz(b"") + bytes(512), zst(MANY[:9_990]) + zst(MANY[9_990:])],
)
def test_members_and_frames_are_joined(tmp_path: Path, data: bytes) -> None:
    version = process(tmp_path, data, near_dedup=None)
    assert [row["text"] for row in version.rows] == [row["text"] for row in ROWS]
    assert [row["line"] for row in version.rows] == [*range(1, 2_001)]


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (gz(MANY)[:-1], "GZIP_BROKEN", "ends too early"),
        (gz(MANY)[:1_000], "GZIP_BROKEN", "ends too early"),
        (gz(MANY)[:5], "GZIP_BROKEN", "after about 0 unpacked bytes, near line 1"),
        (gz(MANY)[:-8] + bytes(8), "GZIP_BROKEN", "incorrect data check"),
        (gz(MANY)[:900] + b"\xff" * 20 + gz(MANY)[920:], "GZIP_BROKEN", "upload it again"),
        (gz(MANY) + b"garbage", "GZIP_BROKEN", f"after about {len(MANY):,} unpacked bytes, near line 2,001"),
        (gz(MANY) + gz(MANY)[:50], "GZIP_BROKEN", "ends too early"),
        (zst(MANY)[:-1], "ZSTD_BROKEN", "Truncated"),
        (zst(MANY)[:5], "ZSTD_BROKEN", "after about 0 unpacked bytes"),
        (zst(MANY) + b"garbage", "ZSTD_BROKEN", "upload it again"),
        (gz(gz(MANY)), "NESTED_ARCHIVE", "The gzip file holds a gzip file."),
        (gz(zst(MANY)), "NESTED_ARCHIVE", "holds a zstd file"),
        (zst(gz(MANY)), "NESTED_ARCHIVE", "The zstd file holds a gzip file."),
        (gz(zipped({"a.py": PYTHON})), "NESTED_ARCHIVE", "holds a zip file"),
        (gz(b"a.py" + bytes(253) + b"ustar\x0000" + bytes(300)), "FORMAT_UNKNOWN", "a tar archive"),
        (gz(b""), "EMPTY_FILE", "empty"),
        (zst(b" \n"), "EMPTY_FILE", "empty"),
    ],
)
def test_what_cannot_be_unpacked_says_where_and_what_to_do(tmp_path: Path, data: bytes, code: str, says: str) -> None:
    error = refused(tmp_path, data)
    assert error.code == code
    assert says in error.message
    assert not (tmp_path / "unpacked").exists()


@pytest.mark.parametrize(("pack", "code"), [(gz, "GZIP_BOMB"), (zst, "ZSTD_BOMB")])
def test_a_bomb_is_stopped_on_its_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: type, code: str) -> None:
    monkeypatch.setattr(allowance, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(compressed, "PIECE_BYTES", 1 << 14)
    row = lines({"text": "x" * 100})
    free = process(tmp_path / "free", pack(row.encode() * 9_000))
    assert free.result["rows_in"] == 9_000
    written: list[int] = []
    monkeypatch.setattr(
        Path, "unlink", lambda path, missing_ok: written.append(path.stat().st_size if path.exists() else 0)
    )
    assert refused(tmp_path / "bomb", pack(b" " * 40_000_000)).code == code
    assert max(written) <= (1 << 22)


def test_four_gigabytes_are_the_most_whatever_the_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "MAX_UNPACKED_BYTES", len(MANY))
    assert process(tmp_path / "fits", gz(MANY), near_dedup=None).result["rows_in"] == 2_000
    error = refused(tmp_path / "more", gz(MANY + b"\n"))
    assert error.code == "GZIP_BOMB"
    assert f"more than {len(MANY):,} bytes" in error.message


def test_a_zip_of_data_is_read_member_by_member(tmp_path: Path) -> None:
    members = {
        "b/two.jsonl": lines({"text": "c", "group": "g"}, "{oops", {"text": "a"}, {"text": 1}),
        "a.ndjson": lines({"text": "a", "group": "g"}, {"text": "b"}),
        "empty.jsonl": "\n",
        "README.md": "about",
        "__MACOSX/._a.jsonl": b"\0\5\26\7",
    }
    version = process(tmp_path, zipped(dict(members)))
    assert version.result["format"] == "JSONL"
    assert [(row["source"], row["line"], row["text"]) for row in version.rows] == [
        ("a.ndjson", 1, "a"),
        ("a.ndjson", 2, "b"),
        ("b/two.jsonl", 1, "c"),
    ]
    assert [(one["source"], one["line"], one["reason"]) for one in version.rejections] == [
        ("b/two.jsonl", 2, "NOT_JSON"),
        ("b/two.jsonl", 3, "DUPLICATE"),
        ("b/two.jsonl", 4, "WRONG_TYPE"),
    ]
    assert version.rejections[1]["excerpt"] == "same as a.ndjson, line 1: a"
    assert version.result["skipped"] == {"NOT_DATA": 2}
    assert not (tmp_path / "member").exists()


@pytest.mark.parametrize(
    ("members", "found", "kept"),
    [
        ({"a.csv": "prompt,completion\np,c\n", "b.tsv": "completion\tprompt\nd\tq\n"}, "CSV", [("p", "c"), ("q", "d")]),
        (
            {"a.json": '[{"prompt": "p", "completion": "c"}]', "b.json": '{"prompt": "q", "completion": "d"}'},
            "JSON",
            [("p", "c"), ("q", "d")],
        ),
        (
            {"a.parquet": parquet([GOOD]), "b.parquet": parquet([{**GOOD, "prompt": "q"}])},
            "PARQUET",
            [("p", "c"), ("q", "c")],
        ),
    ],
)
def test_zips_of_other_data(
    tmp_path: Path, members: dict[str, bytes | str], found: str, kept: list[tuple[str, str]]
) -> None:
    version = process(tmp_path, zipped(members))
    assert version.result["format"] == found
    assert [(row["prompt"], row["completion"]) for row in version.rows] == kept
    assert [row["source"] for row in version.rows] == sorted(members)


def test_a_member_with_other_columns_loses_no_row_in_silence(tmp_path: Path) -> None:
    version = process(tmp_path, zipped({"a.csv": "prompt,completion\np,c\n", "b.csv": "question,answer\nq,d\nr,e\n"}))
    assert [(one["source"], one["line"], one["reason"], one["field"]) for one in version.rejections] == [
        ("b.csv", 2, "MISSING_FIELD", "prompt"),
        ("b.csv", 3, "MISSING_FIELD", "prompt"),
    ]


def _with_flag(data: bytes, flag: int) -> bytes:
    changed = bytearray(data)
    changed[changed.rindex(b"PK\1\2") + 8] |= flag
    return bytes(changed)


def _with_other_text(data: bytes) -> bytes:
    return data.replace(b'"text"', b'"tixt"', 1)


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (
            zipped({"a.csv": "text\na\n", "b.jsonl": MANY}),
            "FORMAT_UNKNOWN",
            "a.csv is a table with a header, but b.jsonl is JSON Lines",
        ),
        (zipped({"a.jsonl": gz(MANY)}), "FORMAT_UNKNOWN", "in which a.jsonl is a gzip file"),
        (zipped({"a.jsonl": zipped({"b.jsonl": MANY})}), "FORMAT_UNKNOWN", "in which a.jsonl is a zip archive"),
        (zipped({"a.jsonl.gz": gz(MANY)}), "FORMAT_UNKNOWN", "such as a.jsonl.gz"),
        (_with_flag(zipped({"a.jsonl": MANY}), 1), "ZIP_BROKEN", "without a password"),
        (zipped({"a.jsonl": MANY}, zipfile.ZIP_BZIP2), "ZIP_BROKEN", "a.jsonl in the zip archive cannot be unpacked"),
        (_with_other_text(zipped({"a.jsonl": MANY}, zipfile.ZIP_STORED)), "ZIP_BROKEN", "CRC"),
        (zipped({"a.parquet": parquet([GOOD])[:-20]}), "PARQUET_UNREADABLE", "In a.parquet: "),
        (zipped({"a.json": "[]", "b.json": '{"x": [{}], "y": [{}]}'}), "FORMAT_MISMATCH", "In b.json: "),
        (zipped({"a.jsonl": " "}), "FORMAT_UNKNOWN", "neither"),
        (zipped({f"{number}.jsonl": "" for number in range(1_001)}), "TOO_MANY_FILES", "1,001 data files"),
        (zipped({f"{number}": "" for number in range(51)}), "FORMAT_UNKNOWN", "neither"),
        (zipped({f"{number}.parquet": parquet([GOOD]) for number in range(51)}), "TOO_MANY_FILES", "51 Parquet files"),
    ],
)
def test_a_zip_of_data_is_read_whole_or_not_at_all(tmp_path: Path, data: bytes, code: str, says: str) -> None:
    error = refused(tmp_path, data)
    assert error.code == code
    assert says in error.message


def test_source_wins_over_data_unless_data_is_declared(tmp_path: Path) -> None:
    data = zipped({"a.py": PYTHON, "fixture.jsonl": MANY})
    version = process(tmp_path / "source", data)
    assert version.result["format"] == "PYTHON"
    assert version.result["skipped"]["NOT_SOURCE"] == 1
    declared = process(tmp_path / "data", data, format="JSONL", near_dedup=None)
    assert declared.result["rows_kept"] == 2_000
    assert declared.result["skipped"] == {"NOT_DATA": 0}


def test_dangerous_names_in_a_zip_of_data_are_rejected_alone(tmp_path: Path) -> None:
    version = process(tmp_path, zipped({"../a.jsonl": MANY, "b.jsonl": lines({"text": "b"})}))
    assert [row["text"] for row in version.rows] == ["b"]
    assert [(one["source"], one["line"], one["reason"]) for one in version.rejections] == [
        ("../a.jsonl", 1, "UNSAFE_NAME")
    ]


def test_damage_anywhere_in_a_gzip_file_is_never_a_crash_nor_a_silent_loss(tmp_path: Path) -> None:
    data = gz(lines(*ROWS[:40]).encode())
    for place in range(2, len(data), 13):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        with suppress(ChildError):  # and nothing else
            version = process(tmp_path / str(place), bytes(damaged), near_dedup=None)
            assert [row["text"] for row in version.rows] == [row["text"] for row in ROWS[:40]]


def test_zlib_gives_what_it_still_holds_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "PIECE_BYTES", 7)
    packed = tmp_path / "packed"
    packed.write_bytes(gz(b"a" * 1_000) + gz(b"b" * 10))
    assert compressed.unpack(packed, tmp_path / "out", lambda: None) == 1_010
    assert zlib.crc32((tmp_path / "out").read_bytes()) == zlib.crc32(b"a" * 1_000 + b"b" * 10)
