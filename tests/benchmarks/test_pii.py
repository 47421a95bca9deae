"""The truth that contenders are compared with: entities with right check digits, and a measure that is strict."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from benchmarks.pii import f1
from benchmarks.pii.corpus import ARGUABLE, CODE, PROSE, _joined, _sentence, negatives
from benchmarks.pii.entities import MAKERS
from datasets.pipeline.pii import find


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_planted_is_found_in_each_sentence(kind: str) -> None:
    r = random.Random(5)
    for templates in (CODE, PROSE):
        planted = [
            (_sentence(r, templates, kind, value), kind, value) for value in (MAKERS[kind](r) for _ in range(40))
        ]
        text, truth = _joined(r, ["import os", "def f(): ..."], planted)
        assert [text[start:end] for start, end, _ in truth] != []
        found = [(start, end) for _, start, end, code in find(pa.array([text]))]
        missed = [text[start:end] for start, end, _ in truth if (start, end) not in found]
        assert len(missed) <= 1, missed  # chance makes some look like nothing


def test_in_what_only_looks_like_it_nothing_is_found() -> None:
    r = random.Random(6)
    lines = [*ARGUABLE, *(negatives(r) for _ in range(2_000))]
    found = find(pa.array(lines))
    assert [(lines[row][start:end], kind) for row, start, end, kind in found] == []


@pytest.mark.parametrize(
    ("found", "score"),
    [
        ([(0, 10, "EMAIL"), (20, 30, "SSN")], 1.0),
        ([(0, 10, "EMAIL")], 2 / 3),
        ([(0, 10, "EMAIL"), (20, 30, "PHONE")], 0.5),
        ([(0, 10, "EMAIL"), (22, 32, "SSN")], 1.0),
        ([(0, 10, "EMAIL"), (25, 35, "SSN")], 0.5),
        ([(0, 10, "EMAIL"), (0, 10, "EMAIL"), (20, 30, "SSN")], 4 / 5),
        ([], 0.0),
    ],
)
def test_a_span_counts_once_and_only_where_half_of_it_is_right(found: list[tuple[int, int, str]], score: float) -> None:
    truth = [(0, 10, "EMAIL"), (20, 30, "SSN")]
    assert f1([found], [truth], {"EMAIL", "SSN", "PHONE"}) == pytest.approx(score)
    assert f1([found], [truth], {"IBAN"}) == 1.0
    arguable = [(100, 120, "EITHER")]
    assert f1([[*found, (105, 118, "EMAIL")]], [truth + arguable], {"EMAIL", "SSN", "PHONE"}) == pytest.approx(score)
