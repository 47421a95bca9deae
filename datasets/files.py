"""Where a version's files lie: its own below its prefix, and those of the rows that it shares with its parent below that one's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from common import blobs
from datasets.models import DatasetVersion

MANIFEST = "manifest.json"


def manifest_of(version: DatasetVersion) -> dict[str, Any]:
    """The manifest of a version that is made, and not deleted."""
    with blobs.open_read(f"{version.storage_prefix}/{MANIFEST}") as file:
        manifest: dict[str, Any] = json.load(file)
    return manifest


def key_of(version: DatasetVersion, entry: dict[str, Any]) -> str:
    """Where a file of its manifest lies."""
    return str(entry.get("key") or f"{version.storage_prefix}/{entry['name']}")


@dataclass(frozen=True)
class PartOfSplit:
    """One file of several that a split, or what was left out, consists of."""

    key: str
    start: int
    """How many rows the ones before it have."""
    upload_sha256: str | None
    """The upload that its rows are of; None where the version has one alone."""


def files_of(version: DatasetVersion, split: str) -> list[PartOfSplit]:
    """The files of a split, or of "rejections", in order."""
    if version.parent_id is None:  # then there is one, and its name is known
        return [PartOfSplit(f"{version.storage_prefix}/{split.lower()}-00000.parquet", 0, None)]
    found, rows = [], 0
    for entry in manifest_of(version)["files"]:
        if entry["split"] == split:
            found.append(PartOfSplit(key_of(version, entry), rows, entry["upload"]))
            rows += entry["rows"]
    return found
