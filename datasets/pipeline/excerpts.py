"""What is shown of rows beside a version: what was left out of it, masked as its rows are, and what cleaning did."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from datasets.pipeline.pii import Kind, NameFinder, Policy, find, scrub
from datasets.pipeline.rows import MAX_EXCERPT_BYTES, MAX_FIELD_BYTES, Rejection, excerpt

_LONGEST_CHARACTER_BYTES = 4
# What could be the beginning of something, read from its end: the last word, and a number before it. To look for where that begins
# from the other side takes cubic time.
_CUT_OFF = re.compile(r"[^\s,;]*(?:[0-9 .()/+-]*[0-9]\(?\+?)?")
_MORE = "…"

SEARCHED_AROUND = 10_000  # characters: nothing that is found is longer


def masked(rejections: list[Rejection], policy: Policy, key: bytes) -> list[Rejection]:
    """The same rejections. What rows are masked or left out for is masked in their excerpts and in the names of their fields, which may
    be any that the upload has; what is kept shows in them.

    Where such a text ends because it may be no longer, so does what could be the beginning of something: a word or a number
    that is not of letters alone.
    """
    shown = policy.of_excerpts()
    if not rejections or shown == Policy.nothing():
        return rejections
    texts = [_without_half_a_word(one.excerpt, MAX_EXCERPT_BYTES) for one in rejections]
    fields = [_without_half_a_word(one.field or "", MAX_FIELD_BYTES) for one in rejections]
    columns = {"excerpt": pa.array(texts, pa.string()), "field": pa.array(fields, pa.string())}
    masked = scrub(columns, shown, key).columns
    found = zip(rejections, masked["excerpt"].to_pylist(), masked["field"].to_pylist(), strict=True)
    return [
        one._replace(excerpt=excerpt(text), field=excerpt(field, MAX_FIELD_BYTES) if one.field is not None else None)
        for one, text, field in found
    ]


def are_shown(
    places: Sequence[tuple[str, int, int]], hidden: frozenset[Kind], names: NameFinder | None = None
) -> list[bool]:
    """Of each text[begin:end] whether nothing of these kinds is in it, neither where that was found nor where it stands again."""
    if not hidden:
        return [True] * len(places)
    around = [text[max(0, begin - SEARCHED_AROUND) : end + SEARCHED_AROUND] for text, begin, end in places]
    shown = [True] * len(places)
    for number, start, stop, _ in find(pa.array(around, pa.large_string()), hidden, names):
        text, begin, end = places[number]
        skipped = max(0, begin - SEARCHED_AROUND)
        overlaps = start + skipped < end and begin < stop + skipped
        if overlaps or around[number][start:stop] in text[begin:end]:
            shown[number] = False
    return shown


def _without_half_a_word(text: str, limit_bytes: int) -> str:
    if len(text.encode()) <= limit_bytes - _LONGEST_CHARACTER_BYTES:
        return text
    cut_off = _CUT_OFF.match(text[::-1])
    assert cut_off is not None  # if only the end itself
    begin = len(text) - cut_off.end()
    return text if begin == len(text) or text[begin:].isalpha() else text[:begin] + _MORE
