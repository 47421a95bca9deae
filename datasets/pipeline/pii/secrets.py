"""Secrets: one search for all literals that they begin with or stand behind, then a pattern at each place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from datasets.pipeline.pii.assignments import (
    NAME_LITERALS,
    PRIVATE_KEY_LITERAL,
    URL_LITERAL,
    named_secret,
    private_key,
    url_password,
)
from datasets.pipeline.pii.findings import Hit
from datasets.pipeline.pii.segments import Segment
from datasets.pipeline.pii.tokens import TOKEN_LITERALS, TWILIO_HEAD, tokens_at

LITERALS = [*TOKEN_LITERALS, PRIVATE_KEY_LITERAL, URL_LITERAL, *NAME_LITERALS]
_NAME_HEADS = frozenset(literal[:2].encode() for literal in NAME_LITERALS)

assert len(LITERALS) <= 64 and min(map(len, LITERALS)) >= 3, "the search would be several times slower"


def find_secrets(segment: Segment) -> Iterator[Hit]:
    positions = np.concatenate([segment.positions_of(LITERALS), segment.pairs(TWILIO_HEAD)])
    row_ends = segment.starts[segment.places(positions) + 1] - 1
    data = segment.data
    for position, row_end in zip(positions.tolist(), row_ends.tolist(), strict=True):
        head = data[position : position + 2]
        if head == b"PR":
            yield from private_key(data, position, row_end)
        elif head == b":/":
            yield from url_password(data, position, row_end)
        else:
            yield from tokens_at(data, position, row_end)
            if head in _NAME_HEADS:
                yield from named_secret(data, position, row_end)
