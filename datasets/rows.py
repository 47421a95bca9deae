"""Looks into a finished version's files: its rows, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from common import blobs
from common.errors import Invalid
from common.text import is_storable
from datasets.files import files_of
from datasets.models import DatasetVersion
from datasets.pipeline.stored.store import read_rejections, read_rows

MAX_PAGE = 100


@dataclass(frozen=True)
class RejectionPage:
    rows: list[tuple[str, dict[str, Any]]]  # (cursor, rejection)
    has_next: bool
    has_previous: bool
    total: int


NONE = RejectionPage([], False, False, 0)


def preview(version: DatasetVersion, split: str, first: int) -> list[dict[str, Any]]:
    """The first rows of a split, at most 100; none before the version is made."""
    if not version.storage_prefix:
        return []
    wanted = min(_page_size(first), MAX_PAGE)

    def read() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for part in files_of(version, split):
            if len(rows) < wanted:
                with blobs.open_read(part.key) as file:
                    rows += read_rows(file, wanted - len(rows))  # type: ignore[arg-type]
        return rows

    return [shown(row) for row in _found(version, read) or []]


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as people see it."""
    return {
        "prompt": row["prompt"],
        "completion": row["completion"],
        "text": row["text"],
        "messages": json.loads(row["messages"]) if row["messages"] is not None else None,
        "line": row["line"],
        "source": row["source"],
        "upload_sha256": row.get("upload"),  # versions of an earlier release do not know
        "changed_by": (row.get("changed_by") or "").split(),
    }


def rejections(version: DatasetVersion, *, first: int, after: str | None, reason: str | None) -> RejectionPage:
    """A page of what was left out, in the order of the uploads; empty before the version is made. Raises Invalid."""
    size, position = min(_page_size(first), MAX_PAGE), _position(after)
    if not version.storage_prefix or not is_storable(reason or ""):
        return NONE

    def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for part in files_of(version, "rejections"):
            if len(found) <= size:
                with blobs.open_read(part.key) as file:
                    page = read_rejections(file, max(position - part.start, 0), size + 1 - len(found), reason)  # type: ignore[arg-type]
                place = {"upload_sha256": part.upload_sha256}
                found += [{**row, **place, "position": row["position"] + part.start} for row in page]
        return found

    found = _found(version, read)
    if found is None:
        return NONE
    names = ("source", "line", "field", "step", "reason", "excerpt", "upload_sha256")
    rows = [(str(row["position"]), {name: row.get(name) for name in names}) for row in found[:size]]
    return RejectionPage(rows, len(found) > size, position > 0, _total(version, reason))


def _found(version: DatasetVersion, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
    """What `read` finds in its files; None where its dataset was deleted after `version` had been loaded."""
    try:
        return read()
    except FileNotFoundError:
        if DatasetVersion.objects.filter(pk=version.pk).exclude(storage_prefix="").exists():
            raise  # nobody has deleted it: it is lost
        return None


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
