"""Secrets: one search for all literals that they begin with or stand behind, then a pattern at each place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

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
from datasets.pipeline.pii.segments import Positions, Segment, search_of
from datasets.pipeline.pii.surroundings import may_begin
from datasets.pipeline.pii.tokens import TOKEN_LITERALS, TOKENS, TWILIO_HEAD

_SEARCH = search_of([*TOKEN_LITERALS, PRIVATE_KEY_LITERAL, URL_LITERAL, *NAME_LITERALS])

Look = Callable[[bytes, int, int], Hit | None]  # at a position, and no further than the row's end

_HEAD = 2  # bytes, by which a position is known
_TOKENS: dict[bytes, list[Look]] = defaultdict(list)
_OTHERS: dict[bytes, Look] = {URL_LITERAL[:_HEAD].encode(): url_password}
for _each in TOKENS:
    for _head in {literal[:_HEAD].encode() for literal in _each.literals}:
        _TOKENS[_head].append(_each.hit)
for _literal in NAME_LITERALS:
    _OTHERS[_literal[:_HEAD].encode()] = named_secret
_FRAME = PRIVATE_KEY_LITERAL[:_HEAD].encode()


def find_secrets(segment: Segment) -> Iterator[Hit]:
    positions = np.concatenate([segment.positions_of(_SEARCH), segment.pairs(TWILIO_HEAD)])
    row_ends = segment.starts[segment.places(positions) + 1] - 1
    may_be_token = _may_be_token(segment, positions)
    data = segment.data
    for position, row_end, may in zip(positions.tolist(), row_ends.tolist(), may_be_token.tolist(), strict=True):
        head = data[position : position + _HEAD]
        if may:
            for token in _TOKENS.get(head, ()):
                if hit := token(data, position, row_end):
                    yield hit
        if (look := _OTHERS.get(head)) and (hit := look(data, position, row_end)):
            yield hit
        if head == _FRAME:
            yield from private_key(data, position, row_end)


def _may_be_token(segment: Segment, positions: Positions) -> np.ndarray:
    """Where a token may begin; each looks at it again, but only where its pattern was found."""
    return may_begin(segment, positions) & (segment.at(positions - 1) != ord("-"))
