"""/v1 shows nobody another's models, and no name tells whether somebody else has it."""

from __future__ import annotations

from tests.isolation import v1
from tests.isolation.world import World


def test_every_address_is_in_the_table() -> None:
    v1.check_all_are_known()


def test_everybody_finds_their_own_models(world: World) -> None:
    v1.check_lists(world)


def test_who_may_ask_may_ask_their_own(world: World) -> None:
    v1.check_own(world)


def test_anothers_model_is_as_none(world: World) -> None:
    v1.check_foreign(world)
