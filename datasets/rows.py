"""Looks into a finished version's files: its rows, and what was left out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from common import blobs
from common.errors import Invalid
from common.text import is_storable
from datasets.models import DatasetVersion
from datasets.pipeline.store import read_rejections, read_rows

MAX_PAGE = 100


@dataclass(frozen=True)
class RejectionPage:
    rows: list[tuple[str, dict[str, Any]]]  # (cursor, rejection)
    has_next: bool
    has_previous: bool
    total: int


def preview(version: DatasetVersion, split: str, first: int) -> list[dict[str, Any]]:
    """The first rows of a split, at most 100; none before the version is made."""
    if not version.storage_prefix:
        return []
    with blobs.open_read(f"{version.storage_prefix}/{split.lower()}-00000.parquet") as file:
        rows = read_rows(file, min(_page_size(first), MAX_PAGE))  # type: ignore[arg-type]
    return [
        {
            "prompt": row["prompt"],
            "completion": row["completion"],
            "text": row["text"],
            "messages": json.loads(row["messages"]) if row["messages"] is not None else None,
        }
        for row in rows
    ]


def rejections(version: DatasetVersion, *, first: int, after: str | None, reason: str | None) -> RejectionPage:
    """A page of what was left out, in the order of the upload; empty before the version is made. Raises Invalid."""
    size, position = min(_page_size(first), MAX_PAGE), _position(after)
    if not version.storage_prefix or not is_storable(reason or ""):
        return RejectionPage([], False, False, 0)
    with blobs.open_read(f"{version.storage_prefix}/rejections-00000.parquet") as file:
        found = read_rejections(file, position, size + 1, reason)  # type: ignore[arg-type]
    names = ("line", "field", "step", "reason", "excerpt")
    rows = [(str(row["position"]), {name: row[name] for name in names}) for row in found[:size]]
    return RejectionPage(rows, len(found) > size, position > 0, _total(version, reason))


def masked_places(version: DatasetVersion, *, first: int, kind: str | None) -> list[dict[str, Any]]:
    """The first of the masked places that were sampled, at most 100. Raises Invalid."""
    size = min(_page_size(first), MAX_PAGE)
    places = [place for place in samples(version)["masked_places"] if kind in (None, place["kind"])]
    return places[:size]


def duplicate_clusters(version: DatasetVersion, *, first: int) -> list[dict[str, Any]]:
    """The first of the clusters that were sampled, at most 100. Raises Invalid."""
    size = min(_page_size(first), MAX_PAGE)
    return samples(version)["duplicate_clusters"][:size]


def samples(version: DatasetVersion) -> dict[str, list[dict[str, Any]]]:
    """What the pipeline has left for a person to judge; nothing of a version that was made before it did."""
    none: dict[str, list[dict[str, Any]]] = {"masked_places": [], "duplicate_clusters": []}
    if not version.storage_prefix:
        return none
    try:
        with blobs.open_read(f"{version.storage_prefix}/samples.json") as file:
            return none | json.load(file)
    except FileNotFoundError:
        return none


def _total(version: DatasetVersion, reason: str | None) -> int:
    return sum(
        count["count"]
        for step in version.steps
        for count in step["reasons"]
        if reason is None or count["key"] == reason
    )


def _page_size(first: int) -> int:
    if first < 0:
        raise Invalid("first should be 0 or more.", field="first")
    return first


def _position(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isdecimal() or len(cursor) > 18:
        raise Invalid("after should be a cursor that this list has given out.", field="after")
    return int(cursor)
