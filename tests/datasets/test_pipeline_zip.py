"""Zips from somebody unknown: what is source is read, what is dangerous is refused, nothing is unpacked to disk."""

from __future__ import annotations

import io
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest

from common.child import ChildError
from datasets.pipeline.reading import archive
from tests.datasets.pipelines import process, refused, zipped

GOOD = 'def good(x):\n    """Doc."""\n    return x\n'
OTHER = GOOD.replace("good", "other")


def test_members_that_are_no_source_are_skipped_and_counted(tmp_path: Path) -> None:
    inner = zipped({"deep.py": OTHER})
    members: dict[str, bytes | str] = {
        "p/": "",
        "p/a.py": GOOD,
        "p/b.PY": OTHER,
        "p/README.md": "# read me",
        "p/inner.zip": inner,
        "p/a.py-tpl": GOOD,
        "p/c.pyc": b"\0" * 100,
        "__MACOSX/p/._a.py": b"\0\5\26\7",
        "p/._a.py": b"\0\5\26\7",
    }
    version = process(tmp_path, zipped(members))
    assert [row["source"] for row in version.rows] == ["p/a.py", "p/b.PY"]
    assert version.rejections == []
    assert version.result["skipped"] == {"NOT_SOURCE": 6, "FUNCTION_TOO_SMALL": 0}


@pytest.mark.parametrize(
    "name",
    [
        "/etc/a.py",
        "../a.py",
        "p/../../a.py",
        "..\\a.py",
        "C:\\a.py",
        "p/\u202eyp.a.py",
        "p/\x07.py",
        "n" * 1_100 + ".py",
    ],
)
@pytest.mark.parametrize("suffix", ["", ".txt"])
def test_a_name_that_leads_elsewhere_is_rejected_whatever_it_holds(tmp_path: Path, name: str, suffix: str) -> None:
    version = process(tmp_path, zipped({name + suffix: OTHER, "a.py": GOOD}))
    assert [row["source"] for row in version.rows] == ["a.py"]
    assert [rejection["reason"] for rejection in version.rejections] == ["UNSAFE_NAME"]


def test_a_symlink_is_rejected(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        link = zipfile.ZipInfo("link.py")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
        file.writestr("a.py", GOOD)
    version = process(tmp_path, buffer.getvalue())
    assert [(rejection["source"], rejection["reason"]) for rejection in version.rejections] == [("link.py", "SYMLINK")]
    assert version.result["rows_kept"] == 1


def test_a_member_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.py": GOOD, "b.py": OTHER, "c.py": "# c"}, zipfile.ZIP_STORED))
    data[data.index(OTHER.encode())] ^= 1  # its checksum no longer fits
    version = process(tmp_path, bytes(data))
    assert [row["source"] for row in version.rows] == ["a.py"]
    assert [(rejection["source"], rejection["reason"]) for rejection in version.rejections] == [
        ("b.py", "UNREADABLE_MEMBER")
    ]


def test_encrypted_and_oddly_packed_members_are_rejected(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.py", GOOD)
        file.writestr("b.py", OTHER, compress_type=zipfile.ZIP_BZIP2)
        file.writestr("c.py", OTHER)
    data = bytearray(buffer.getvalue())
    entry = data.rindex(b"PK\1\2")
    data[entry + 8] |= 1
    version = process(tmp_path, bytes(data))
    assert [(rejection["source"], rejection["reason"]) for rejection in version.rejections] == [
        ("b.py", "UNREADABLE_MEMBER"),
        ("c.py", "ENCRYPTED"),
    ]


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, zipped({"a.py": GOOD, "b.py": b"#" * 17_000_000}))
    assert error.code == "ZIP_BOMB"
    assert "100 times" in error.message


def test_a_bomb_hidden_among_harmless_files_is_rejected_alone(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.py", GOOD)
        file.writestr("b.py", b"#" * 900_000)
        file.writestr("noise.bin", b"".join(struct.pack(">Q", pow(7, number, 2**61 - 1)) for number in range(5_000)))
    version = process(tmp_path, buffer.getvalue())
    assert [(rejection["source"], rejection["reason"]) for rejection in version.rejections] == [
        ("b.py", "RATIO_TOO_HIGH")
    ]


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    """Many entries that share the same bytes: small by each entry's own ratio."""
    one = zipped({"a.py": GOOD * 400})
    directory = one.index(b"PK\1\2")
    end = one.index(b"PK\5\6")
    entries = one[directory:end] * 2_000
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2_000, 2_000, len(entries), directory, 0)
    assert refused(tmp_path, one[:directory] + entries + tail).code == "ZIP_BOMB"


def test_too_many_members_are_refused_whatever_number_the_archive_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 50)
    allowed = zipped({f"{number}.py": GOOD for number in range(50)})
    assert process(tmp_path / "allowed", allowed).result["rows_in"] == 50
    data = bytearray(zipped({f"{number}.py": GOOD for number in range(51)}))
    assert refused(tmp_path / "honest", bytes(data)).code == "ZIP_BOMB"
    struct.pack_into("<2H", data, data.rindex(b"PK\5\6") + 8, 1, 1)
    assert refused(tmp_path / "lying", bytes(data)).code == "ZIP_BOMB"


def test_too_much_is_refused_by_its_declared_size(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.py": GOOD, "b.bin": b"b"}))
    struct.pack_into("<L", data, data.rindex(b"PK\1\2") + 24, 2**32 - 2)
    error = refused(tmp_path, bytes(data))
    assert error.code == "ZIP_BOMB"
    assert "4,294,967,296" in error.message


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_off_archive_is_a_typed_failure(tmp_path: Path, keep: float) -> None:
    data = zipped({f"{number}.py": GOOD for number in range(10)})
    assert refused(tmp_path, data[: int(len(data) * keep)]).code == "ZIP_BROKEN"


def test_damage_anywhere_is_never_a_crash(tmp_path: Path) -> None:
    data = zipped({"a.py": GOOD, "b.py": OTHER})
    for place in range(4, len(data), 11):
        damaged = bytearray(data)
        damaged[place] ^= 0xFF
        with suppress(ChildError):  # and nothing else
            assert process(tmp_path / str(place), bytes(damaged)).result["rows_in"] <= 3
