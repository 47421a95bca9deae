"""Runs the pipeline over bytes, in this process, and shows what became of each row."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.child import Attempt, ChildError
from datasets.pipeline.run import Run
from datasets.pipeline.stored.store import read_rejections, read_rows

ALL = 1_000_000


@dataclass(frozen=True)
class Version:
    folder: Path
    result: dict[str, Any]
    events: list[dict[str, Any]]
    parents: tuple[Version, ...] = ()

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads((self.folder / "manifest.json").read_text())

    def split(self, name: str) -> list[dict[str, Any]]:
        return [row for path in self.files(name.upper()) for row in read_rows(path, ALL)]

    def files(self, split: str) -> list[Path]:
        """Those that the manifest names, wherever they lie."""
        places = {f"stored/{number}": parent.folder for number, parent in enumerate(self.parents, 1)}
        return [
            (places[entry["key"].rpartition("/")[0]] if "key" in entry else self.folder) / entry["name"]
            for entry in self.manifest["files"]
            if entry["split"] == split
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of all splits in the order of the upload."""
        rows = [row for name in ("train", "validation", "test") for row in self.split(name)]
        return sorted(rows, key=lambda row: (row["source"] or "", row["line"]))

    @property
    def rows_alone(self) -> list[dict[str, Any]]:
        """Without the digest of the upload, so that they can be compared with those of another one."""
        return [{name: value for name, value in row.items() if name != "upload"} for row in self.rows]

    @property
    def rejections(self) -> list[dict[str, Any]]:
        return [row for path in self.files("rejections") for row in read_rejections(path, 0, ALL)]

    @property
    def why(self) -> list[tuple[int, str]]:
        return [(rejection["line"], rejection["reason"]) for rejection in self.rejections]


def order(folder: Path, data: bytes, file_name: str, recipe: dict[str, Any], parents: Sequence[Version] = ()) -> None:
    """An attempt's folder, as the supervisor leaves it for the child."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "upload").write_bytes(data)
    orders: dict[str, Any] = {
        "source": str(folder / "upload"),
        "file_name": file_name,
        "recipe": recipe,
        "pii_key": "00" * 16,
    }
    if parents:
        orders["parent"] = [
            {"number": number, "prefix": f"stored/{number}", "folder": str(parent.folder)}
            for number, parent in enumerate(parents, 1)
        ]
    (folder / "run.json").write_text(json.dumps(orders))


def process(
    folder: Path, data: bytes | str, file_name: str = "data", parents: Sequence[Version] = (), **recipe: Any
) -> Version:
    order(folder, data.encode() if isinstance(data, str) else data, file_name, recipe, parents)
    result = Run(Attempt(folder)).process()
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    version = Version(folder / "version", result, events, tuple(parents))
    assert version.result["rows_in"] == len(version.rows) + len(version.rejections)
    return version


def append(folder: Path, parents: Sequence[Version], data: bytes | str, **recipe: Any) -> Version:
    """The rows of `data` added to those of the last of `parents`, each of which was made by adding to those before it."""
    return process(folder, data, parents=parents, **recipe)


def refused(folder: Path, data: bytes | str, file_name: str = "data", **recipe: Any) -> ChildError:
    """The failure that the pipeline ends with; nothing that passes for a version is left."""
    with pytest.raises(ChildError) as caught:
        process(folder, data, file_name, **recipe)
    assert not (folder / "version" / "manifest.json").exists()
    return caught.value


def lines(*rows: Any) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def zipped(members: dict[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(
                zipfile.ZipInfo(name), content, compression
            )  # which has no time of its own: it names tests
    return buffer.getvalue()


def parquet(rows: list[dict[str, Any]] | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()
