"""Looks into a finished version's files: its rows, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

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


NONE = RejectionPage([], False, False, 0)


def preview(version: DatasetVersion, split: str, first: int) -> list[dict[str, Any]]:
    """The first rows of a split, at most 100; none before the version is made."""
    if not version.storage_prefix:
        return []
    size = min(_page_size(first), MAX_PAGE)
    rows = _found(version, f"{split.lower()}-00000.parquet", lambda file: read_rows(file, size))  # type: ignore[arg-type]
    return [
        {
            "prompt": row["prompt"],
            "completion": row["completion"],
            "text": row["text"],
            "messages": json.loads(row["messages"]) if row["messages"] is not None else None,
        }
        for row in rows or []
    ]


def rejections(version: DatasetVersion, *, first: int, after: str | None, reason: str | None) -> RejectionPage:
    """A page of what was left out, in the order of the upload; empty before the version is made. Raises Invalid."""
    size, position = min(_page_size(first), MAX_PAGE), _position(after)
    if not version.storage_prefix or not is_storable(reason or ""):
        return NONE
    found = _found(
        version,
        "rejections-00000.parquet",
        lambda file: read_rejections(file, position, size + 1, reason),  # type: ignore[arg-type]
    )
    if found is None:
        return NONE
    names = ("line", "field", "step", "reason", "excerpt")
    rows = [(str(row["position"]), {name: row[name] for name in names}) for row in found[:size]]
    return RejectionPage(rows, len(found) > size, position > 0, _total(version, reason))


def _found(
    version: DatasetVersion, name: str, read: Callable[[IO[bytes]], list[dict[str, Any]]]
) -> list[dict[str, Any]] | None:
    """What `read` finds in one of its files; None where its dataset was deleted after `version` had been loaded."""
    try:
        with blobs.open_read(f"{version.storage_prefix}/{name}") as file:
            return read(file)
    except FileNotFoundError:
        if DatasetVersion.objects.filter(pk=version.pk).exclude(storage_prefix="").exists():
            raise  # nobody has deleted it: it is lost
        return None


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
