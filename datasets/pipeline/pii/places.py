"""Masked places, before and after, for a person to judge whether they should have been masked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pyarrow as pa

from datasets.pipeline.pii.findings import Finding, Findings
from datasets.pipeline.pii.hints import hint
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.masking import mask_row, replacement
from datasets.pipeline.pii.placeholders import Placeholders
from datasets.pipeline.pii.preview import AROUND_CHARACTERS
from datasets.pipeline.pii.standing import Values


@dataclass(frozen=True)
class MaskedPlace:
    """`before` has a hint in the place of what was found, `after` the placeholder; around it all else is masked in both."""

    row: int
    kind: Kind
    before: str
    after: str


def masked_places(
    texts: pa.Array | pa.ChunkedArray, findings: Findings, key: bytes, room: Counter[Kind]
) -> list[MaskedPlace]:
    """Places of the kinds that there is `room` for, which becomes less by them.

    What was found never shows: a place in whose surroundings the same value stands again, unfound, is passed over.
    `findings` should be of all kinds, also of those that are kept in the version.
    """
    wanted = findings.of_kinds(frozenset(kind for kind, left in room.items() if left > 0)).rows()
    if not len(wanted):
        return []
    chosen = np.zeros(len(texts), np.bool_)
    chosen[wanted] = True
    placeholders, found = Placeholders(key), []
    for row, group in groupby(findings.of_rows(chosen), lambda one: one.row):
        for place in _places(texts[row].as_py(), row, list(group), placeholders, room):
            room[place.kind] -= 1
            found.append(place)
        if not any(left > 0 for left in room.values()):
            break
    return found


def _places(
    text: str, row: int, found: list[Finding], placeholders: Placeholders, room: Mapping[Kind, int]
) -> Iterator[MaskedPlace]:
    masked = mask_row(text, found, placeholders)
    values = Values(text[each.start : each.end] for each in found)
    for finding, (start, end, kind) in zip(found, masked.places, strict=True):
        if room.get(kind, 0) <= 0:
            continue
        sign, _, closing = replacement(text, finding, placeholders)  # what of the value stays around its placeholder
        head, tail = masked.text[max(0, start - AROUND_CHARACTERS) : start], masked.text[end : end + AROUND_CHARACTERS]
        shown = hint(kind, text[finding.start : finding.end])
        before = f"{head.removesuffix(sign)}{shown}{tail.removeprefix(closing)}"
        after = f"{head}{masked.text[start:end]}{tail}"
        if not (values.stand_in(before) or values.stand_in(after)):
            yield MaskedPlace(row, kind, before, after)
