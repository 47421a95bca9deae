"""What was found in a row is not shown elsewhere in it, and to see to that takes as long as the row is."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.pipeline.pii.findings import Finding, Findings
from datasets.pipeline.pii.kinds import Kind
from datasets.pipeline.pii.places import masked_places
from datasets.pipeline.pii.preview import previews
from datasets.pipeline.pii.standing import Values

KEY = bytes(16)
short = st.text(alphabet="abc", max_size=7)


@given(values=st.lists(short.filter(bool), max_size=8), text=st.text(alphabet="abcd", max_size=20))
def test_a_value_is_found_wherever_it_stands(values: list[str], text: str) -> None:
    assert Values(values).stand_in(text) == any(value in text for value in values)


def _beside_each_other(count: int) -> tuple[pa.Array, Findings]:
    """A row of so many distinct values, of which each stands once more, unfound, beside another one."""
    size = len("value-000000")
    pieces = [f"value-{number:06} value-{(number + count // 2) % count:06}" for number in range(count)]
    found = [
        Finding(0, place, place + size, Kind.API_KEY) for place in range(0, 2 * count * (size + 1), 2 * (size + 1))
    ]
    return pa.array([" ".join(pieces)]), Findings.of(found)


@pytest.mark.parametrize("count", [2, 150_000])
def test_values_are_not_looked_for_one_by_one_in_each_place(count: int) -> None:
    """Which would be ten thousand million times."""
    texts, findings = _beside_each_other(count)
    assert previews(texts, findings, KEY, 3) == []
    room = Counter({Kind.API_KEY: 20})
    assert masked_places(texts, findings, KEY, room) == []
    assert room == {Kind.API_KEY: 20}


def test_of_a_kind_without_room_no_place_is_shown() -> None:
    texts = pa.array(["one@a.io 1.2.3.4"])
    findings = Findings.of([Finding(0, 0, 8, Kind.EMAIL), Finding(0, 9, 16, Kind.IPV4)])
    room = Counter({Kind.EMAIL: 0, Kind.IPV4: 1})
    assert [place.kind for place in masked_places(texts, findings, KEY, room)] == [Kind.IPV4]
    assert room == {Kind.EMAIL: 0, Kind.IPV4: 0}
