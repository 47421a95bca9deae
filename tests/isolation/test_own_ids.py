"""Each role, and each key, may do with its organization's own what the table of permissions says."""

from __future__ import annotations

import pytest

from tests.isolation.own_ids import check_own
from tests.isolation.places import fields
from tests.isolation.world import World


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name, _ in fields()])
def test_everybody_may_what_their_role_says(world: World, kind: str, name: str) -> None:
    check_own(world, kind, name)
