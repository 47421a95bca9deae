"""Each of these leaks is found, by the check that it is for: a matrix that cannot turn red shows nothing."""

from __future__ import annotations

import pytest

from tests.isolation.leak import Leak
from tests.isolation.leaks import LEAKS
from tests.isolation.world import World


def test_there_are_enough_of_them() -> None:
    assert len({leak.what for leak in LEAKS}) == len(LEAKS) >= 40


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: leak.what)
def test_a_leak_is_found_by_its_check(world: World, leak: Leak) -> None:
    with leak.bared():
        leak.check(world)
        with leak.open(world), pytest.raises(AssertionError, match=leak.shows):
            leak.check(world)
