"""A few masked places with what stands around them, for a person to see what a step has done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, islice

import pyarrow as pa

from datasets.pipeline.pii.findings import Findings
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.masking import mask_row
from datasets.pipeline.pii.placeholders import Placeholders
from datasets.pipeline.pii.standing import Values

AROUND_CHARACTERS = 40


@dataclass(frozen=True)
class Preview:
    row: int
    kind: Kind
    excerpt: str


def previews(
    texts: pa.Array | pa.ChunkedArray, findings: Findings, key: bytes, limit: int, around: int = AROUND_CHARACTERS
) -> list[Preview]:
    """At most `limit` places as they are once all findings are masked.

    What was found never shows: a place in whose surroundings the same value stands again, unfound, is passed over.
    `findings` should be of all kinds, also of those that are kept in the version.
    """
    return list(islice(_previews(texts, findings, Placeholders(key), around), limit))


def _previews(
    texts: pa.Array | pa.ChunkedArray, findings: Findings, placeholders: Placeholders, around: int
) -> Iterator[Preview]:
    for row, group in groupby(findings, lambda one: one.row):
        found, text = list(group), texts[row].as_py()
        masked = mask_row(text, found, placeholders)
        values = Values(text[each.start : each.end] for each in found)
        for start, end, kind in masked.places:
            excerpt = masked.text[max(0, start - around) : end + around]
            if not values.stand_in(excerpt):
                yield Preview(row, kind, excerpt)
