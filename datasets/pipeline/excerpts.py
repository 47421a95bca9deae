"""What is shown of rows that were left out, masked as the rows of the version are."""

from __future__ import annotations

import re

import pyarrow as pa

from datasets.pipeline.pii import Policy, scrub
from datasets.pipeline.rows import MAX_EXCERPT_BYTES, Rejection, excerpt

_LONGEST_CHARACTER_BYTES = 4
# What could be the beginning of something, read from its end: the last word, and a number before it. To look for where that begins
# from the other side takes cubic time.
_CUT_OFF = re.compile(r"[^\s,;]*(?:[0-9 .()/+-]*[0-9]\(?\+?)?")
_MORE = "…"


def masked(rejections: list[Rejection], policy: Policy, key: bytes) -> list[Rejection]:
    """The same rejections. What rows are masked or left out for is masked in their excerpts; what is kept shows in them.

    Where an excerpt ends because it may be no longer, so does what could be the beginning of something: a word or a number
    that is not of letters alone.
    """
    shown = policy.of_excerpts()
    if not rejections or shown == Policy.nothing():
        return rejections
    texts = pa.array([_without_half_a_word(rejection.excerpt) for rejection in rejections], pa.string())
    excerpts = scrub({"excerpt": texts}, shown, key).columns["excerpt"].to_pylist()
    return [one._replace(excerpt=excerpt(text)) for one, text in zip(rejections, excerpts, strict=True)]


def _without_half_a_word(text: str) -> str:
    if len(text.encode()) <= MAX_EXCERPT_BYTES - _LONGEST_CHARACTER_BYTES:
        return text
    cut_off = _CUT_OFF.match(text[::-1])
    assert cut_off is not None  # if only the end itself
    begin = len(text) - cut_off.end()
    return text if begin == len(text) or text[begin:].isalpha() else text[:begin] + _MORE
