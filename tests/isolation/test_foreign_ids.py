"""For another organization's id the answer is byte for byte the one for an id that never existed."""

from __future__ import annotations

import pytest

from tests.isolation.absent_ids import absent_thoroughly
from tests.isolation.foreign_ids import check_foreign_ids
from tests.isolation.places import Place, places
from tests.isolation.world import World


@pytest.mark.parametrize("place", places(), ids=str)
def test_nobody_can_tell_anothers_id_from_one_that_never_existed(world: World, place: Place) -> None:
    check_foreign_ids(world, place)


@pytest.mark.parametrize("place", places(), ids=str)
def test_whatever_is_no_id_of_ours_looks_alike(world: World, place: Place) -> None:
    check_foreign_ids(world, place, "owner", ids=absent_thoroughly)
