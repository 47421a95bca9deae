"""Each of the three layers holds by itself, so that it needs two mistakes to make a leak."""

from __future__ import annotations

import pytest

from tests.isolation.foreign_ids import check_foreign_ids
from tests.isolation.layers import check_authorization, check_querysets, check_references, check_row_level_security
from tests.isolation.owner import without_row_level_security
from tests.isolation.places import places
from tests.isolation.walk import check_walks
from tests.isolation.world import World

HELD_BY_ROW_LEVEL_SECURITY = {"User.memberships"}
"""Fields that a person of two organizations leads through: PostgreSQL alone keeps the second one back."""


def test_querysets_show_everybody_their_own(world: World) -> None:
    check_querysets(world)


def test_actions_authorize(world: World) -> None:
    check_authorization(world)


def test_row_level_security_holds_whatever_is_asked(world: World) -> None:
    check_row_level_security(world)


def test_no_row_refers_to_anothers(world: World) -> None:
    check_references(world)


def test_without_row_level_security_the_code_alone_finds_no_others(world: World) -> None:
    with without_row_level_security():
        for place in places("query", "mutation"):
            check_foreign_ids(world, place, "owner", "outsider's key")


def test_without_row_level_security_no_way_leads_to_anothers(world: World) -> None:
    with without_row_level_security():
        check_walks(world, "owner", apart_from=HELD_BY_ROW_LEVEL_SECURITY, hops=2)


def test_what_row_level_security_alone_holds(world: World) -> None:
    """Or HELD_BY_ROW_LEVEL_SECURITY names something that it need not."""
    with (
        without_row_level_security(),
        pytest.raises(AssertionError, match=r"createdBy\.memberships\.organization as owner"),
    ):
        check_walks(world, "owner", roots=["trainingRun"])
