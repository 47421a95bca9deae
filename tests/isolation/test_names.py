"""What an adapter is called is its organization's affair: its name is answered as one that nobody has given."""

from __future__ import annotations

import pytest

from tests.isolation.names import check_foreign_names, name_places
from tests.isolation.places import Place
from tests.isolation.world import World


@pytest.mark.parametrize("place", name_places(), ids=str)
def test_nobody_can_tell_the_name_of_anothers_adapter_from_one_that_never_was(world: World, place: Place) -> None:
    check_foreign_names(world, place)


def test_wherever_a_model_is_asked_by_its_name_it_is_tried() -> None:
    assert [str(place) for place in name_places()] == [
        "predict(input.model)",
        "predictBatch(input.requests.model)",
        "generate(input.model)",
    ]
