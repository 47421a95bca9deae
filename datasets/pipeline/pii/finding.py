"""Where secrets and personal data stand in rows of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from datasets.pipeline.pii.findings import Findings, Hit, apart, in_characters, joined
from datasets.pipeline.pii.identifiers import find_identifiers
from datasets.pipeline.pii.kinds import KINDS, PERSONAL, SECRETS, Kind
from datasets.pipeline.pii.networks import find_emails, find_ipv4, find_ipv6
from datasets.pipeline.pii.numbers import find_numbers
from datasets.pipeline.pii.phones import find_phones
from datasets.pipeline.pii.placeholders import is_masked
from datasets.pipeline.pii.runs import Runs
from datasets.pipeline.pii.secrets import find_secrets
from datasets.pipeline.pii.segments import Segment, segments

ALL = frozenset(KINDS)

# An operator's model for names, such as spaCy's: for each text, the spans of names in it, in characters.
NameFinder = Callable[[Sequence[str]], Sequence[Sequence[tuple[int, int]]]]


def find(texts: pa.Array | pa.ChunkedArray, kinds: frozenset[Kind] = ALL, names: NameFinder | None = None) -> Findings:
    """What is in each row, whichever rows stand beside it. Spans are in characters and do not overlap.

    Of spans that overlap a secret wins, then the longest, then the more specific kind.
    """
    return joined(_in_segment(segment, kinds, names) for segment in segments(texts))


def _in_segment(segment: Segment, kinds: frozenset[Kind], names: NameFinder | None) -> Findings:
    hits = [
        hit for hit in _hits(segment, kinds) if hit.kind in kinds and not is_masked(segment.data[hit.start : hit.end])
    ]
    if names is not None and Kind.PERSON_NAME in kinds:
        hits += _named(segment, names)
    return in_characters(segment, apart(hits))


def _hits(segment: Segment, kinds: frozenset[Kind]) -> Iterator[Hit]:
    if kinds & SECRETS:
        yield from find_secrets(segment)
    if not kinds & PERSONAL:
        return
    if Kind.EMAIL in kinds:
        yield from find_emails(segment)
    runs = Runs.of(segment)
    if Kind.IPV6 in kinds:
        yield from find_ipv6(runs)
    if Kind.IPV4 in kinds:
        yield from find_ipv4(runs)
    if Kind.PHONE in kinds:
        yield from find_phones(runs)
    yield from find_numbers(runs, kinds)
    yield from find_identifiers(runs, kinds)


def _named(segment: Segment, names: NameFinder) -> Iterator[Hit]:
    texts = [text[:-1] for text in segment.lines.to_pylist()]
    for begin, text, spans in zip(segment.starts[:-1].tolist(), texts, names(texts), strict=True):
        done, at = 0, begin  # the same place, in characters and in bytes
        for start, end in sorted(spans):
            if done <= start < end <= len(text):
                done, at = start, at + len(text[done:start].encode())
                yield Hit(at, at + len(text[start:end].encode()), Kind.PERSON_NAME)
