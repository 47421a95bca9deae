"""What the benchmark of growth calls a slope, and the documents that it searches."""

from __future__ import annotations

import pytest

from benchmarks.growth import slope
from benchmarks.growth.near import Documents


@pytest.mark.parametrize("power", [0, 1, 1.1, 2])
def test_the_slope_is_the_power_that_time_grows_with(power: float) -> None:
    assert slope({size: 0.003 * size**power for size in (10, 31, 100)}) == pytest.approx(power)


def test_of_mixed_documents_some_are_similar_and_of_copies_all() -> None:
    mixed = Documents("mixed", "1000").search(1000)
    assert 100 < mixed["left_out"] < 200
    assert mixed["left_out"] <= mixed["compared"] < 300
    copies = Documents("copies", "300")
    assert copies.search(300)["left_out"] == 299
    assert copies.search(30)["left_out"] == 29
    assert copies.bytes_a_document(300) > 205
