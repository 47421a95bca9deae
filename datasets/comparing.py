"""Two versions side by side."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from common import blobs
from common.errors import Invalid
from common.jobs import JobStatus
from datasets.files import key_of, manifest_of
from datasets.holds import DatasetDeleted
from datasets.models import DatasetVersion

if TYPE_CHECKING:
    from datasets.pipeline.stored.difference import Difference, Shard

MOST_ROWS = 1_000_000
MOST_EXAMPLES = 20


def compare(a: DatasetVersion, b: DatasetVersion, examples: int) -> Difference:
    """What `b` has and has not of the rows of `a`. Files that both share are not looked into.

    Raises Invalid where one of them is not made, is gone, or does not know its rows' digests, and where there are too many rows
    for a request.
    """
    from datasets.pipeline.stored.difference import (  # numpy and Arrow: not for every web process at its start
        NoDigests,
        difference,
    )

    if not 0 <= examples <= MOST_EXAMPLES:
        raise Invalid(f"examples should be from 0 to {MOST_EXAMPLES}.", field="examples")
    if a.organization_id != b.organization_id:
        raise Invalid("Both versions should be of one organization.", code="DIFFERENT_ORGANIZATIONS", field="b")
    theirs, ours = _shards(a, "a"), _shards(b, "b")
    shared = theirs.keys() & ours.keys()
    rows = sum(shard.rows for side in (theirs, ours) for sha256, shard in side.items() if sha256 not in shared)
    if rows > MOST_ROWS:
        raise Invalid(
            f"{rows:,} rows are in files that only one of the versions has; up to {MOST_ROWS:,} are compared. "
            "What each step did, and how many rows there are, is in the two versions themselves.",
            code="DIFF_TOO_LARGE",
            field="b",
        )
    try:
        found = difference(
            [shard for sha256, shard in theirs.items() if sha256 not in shared],
            [shard for sha256, shard in ours.items() if sha256 not in shared],
            examples,
        )
    except NoDigests:
        message = "One of the versions was made by an earlier release, whose rows cannot be compared. Make it anew."
        raise Invalid(message, code="DIFF_NEEDS_NEW_VERSION", field="b") from None
    return _with_shared(found, [(theirs[sha256], ours[sha256]) for sha256 in shared])


def _with_shared(found: Difference, shared: list[tuple[Shard, Shard]]) -> Difference:
    moved = sum(old.rows for old, new in shared if old.split != new.split)
    return replace(found, same=found.same + sum(old.rows for old, _ in shared), moved=found.moved + moved)


def _shards(version: DatasetVersion, field: str) -> dict[str, Shard]:
    """By their digests."""
    from datasets.pipeline.stored.difference import Shard

    if version.dataset.deleted_at is not None:
        raise DatasetDeleted(field)
    if version.status != JobStatus.SUCCEEDED or not version.storage_prefix:
        raise Invalid(
            f"Version {version.number} is {version.status}: there are no rows of it to compare.",
            code="VERSION_NOT_READY",
            field=field,
        )
    return {
        entry["sha256"]: Shard(entry["split"], entry["rows"], partial(blobs.open_read, key_of(version, entry)))  # type: ignore[arg-type]
        for entry in manifest_of(version)["files"]
        if entry["split"] in {"TRAIN", "VALIDATION", "TEST"} and entry["rows"]
    }
