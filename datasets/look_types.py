"""On the wire, what a person looks at in a version: masked places, near-duplicates side by side, and how long rows are."""

from __future__ import annotations

from typing import Any

import strawberry


@strawberry.type(
    description="A place, of the rows that the version added, in which something was found and masked, with what stands around it, in which all else that was found is masked, too."
)
class MaskedPlace:
    kind: str = strawberry.field(description="What was found.")
    line: int = strawberry.field(description="Its row's line in the upload, from 1.")
    source: str | None = strawberry.field(description="Its row's file, in a zip.")
    field: str = strawberry.field(description="The part of the row that it is in.")
    before: str = strawberry.field(
        description="With a hint in the place of what stood there: of a secret how all of its kind begin and roughly its length, of personal data its shape, of an address the first letters of its parts."
    )
    after: str = strawberry.field(description="As it is in the version.")


@strawberry.type(description="A row that was left out as much like another.")
class DroppedDuplicate:
    line: int = strawberry.field(description="Its line in the upload, from 1.")
    source: str | None = strawberry.field(description="Its file, in a zip.")
    similarity: float = strawberry.field(
        description="The exact Jaccard similarity of its shingles with those of the row kept; below the threshold where others stand between the two."
    )
    excerpt: str = strawberry.field(
        description="From shortly before the first difference to the row kept, at most 300 bytes; masked as the version is."
    )
    kept_excerpt: str = strawberry.field(description="The same place in the row kept.")


@strawberry.type(
    description="Rows that are much like each other, of which one was kept; of those that the version added."
)
class DuplicateCluster:
    line: int = strawberry.field(description="The line in the upload of the row kept, from 1.")
    source: str | None = strawberry.field(description="Its file, in a zip.")
    excerpt: str = strawberry.field(description="Its beginning, at most 300 bytes; masked as the version is.")
    size: int = strawberry.field(description="How many rows the cluster has, with the one kept.")
    dropped: list[DroppedDuplicate] = strawberry.field(
        description="Up to five of those that were left out: the ones that resemble the others least."
    )

    @classmethod
    def of(cls, cluster: dict[str, Any]) -> DuplicateCluster:
        return cls(**{**cluster, "dropped": [DroppedDuplicate(**row) for row in cluster["dropped"]]})


@strawberry.type(description="How many rows are so long.")
class LengthBin:
    at_least: int = strawberry.field(description="Characters, from here.")
    at_most: int = strawberry.field(description="Characters, up to here.")
    rows: int = strawberry.field(description="How many rows.")


@strawberry.type(
    description="How long the rows of a version are, in characters, of a chat those of its messages' contents. Bins double."
)
class LengthHistogram:
    field: str = strawberry.field(description="Of which part of a row; `row` is the whole of it.")
    rows: int = strawberry.field(description="Rows that have it.")
    shortest: int = strawberry.field(description="The fewest characters.")
    longest: int = strawberry.field(description="The most characters.")
    mean: float = strawberry.field(description="Characters on average.")
    bins: list[LengthBin] = strawberry.field(description="From the shortest to the longest, without a gap.")

    @classmethod
    def of(cls, histogram: dict[str, Any]) -> LengthHistogram:
        return cls(**{**histogram, "bins": [LengthBin(**each) for each in histogram["bins"]]})
