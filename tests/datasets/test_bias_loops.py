"""The compiled loop finds of the lexicon what its pattern finds."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from datasets.pipeline.bias.counts import Counts

COUNTS = Counts()
LOOPED = Counts()
LOOPED.compile()
TERMS = sorted(COUNTS.lexicon.codes)

term = st.sampled_from(TERMS)
piece = (
    term
    | term.map(str.upper)
    | term.map(lambda one: one.replace(" ", "-"))
    | term.map(lambda one: one[:-1])
    | st.sampled_from([" ", "-", "_", "s", "\n", ".", "9", "\u00e9", "\u017f", "\u212a", "people", "of", "with", "\0"])
)
text = st.lists(piece, max_size=12).map("".join) | st.lists(piece, max_size=12).map(" ".join)


def _found(counts: Counts, texts: list[str | None]) -> Any:
    array = pa.array([None, *texts], pa.string())[1:]  # which does not begin where its buffers do
    return [each.tolist() for each in counts._words(array)]


@given(texts=st.lists(st.none() | text, max_size=6))
@example(texts=["man in the middle man-in the-middle man in the", None, "", "Man", "the man\n", "x_man man9 9man man"])
@example(texts=["people with disabilities", "people with disabilitie", "people  with disabilities"])
@settings(max_examples=300, deadline=None)
def test_the_loop_finds_what_the_pattern_finds(texts: list[str | None]) -> None:
    assert _found(LOOPED, texts) == _found(COUNTS, texts)


def test_each_term_is_found() -> None:
    texts = [*TERMS, *(term.upper().replace(" ", "-") for term in TERMS)]
    assert _found(LOOPED, texts) == _found(COUNTS, texts)
    assert len(set(_found(LOOPED, texts)[0])) == 2 * sum(bool(code) for code in COUNTS.lexicon.codes.values())
