"""From whatever somebody sees, no way through the schema leads to another organization."""

from __future__ import annotations

import json

import pytest

from tests.isolation.walk import check_walks, walks
from tests.isolation.world import World


@pytest.mark.parametrize(
    ("walker", "hops"),
    [
        *((walker, 2) for walker in ("owner", "outsider", "viewer", "key of admin", "removed")),
        *(pytest.param(walker, 3, marks=pytest.mark.slow) for walker in ("owner", "outsider")),
    ],
)
def test_no_way_leads_to_anothers(world: World, walker: str, hops: int) -> None:
    check_walks(world, walker, hops=hops)


def test_there_are_ways_to_walk_and_something_at_their_ends(world: World) -> None:
    """The models that may be fine-tuned are everybody's, and neither a version nor a run differs from itself; wherever else a way leads, the
    asker's own word is found.
    """
    assert len(list(walks(world.ours))) > 150
    owner, ends = world.askers["owner"], walks(world.ours, hops=1)
    nobodys = [name for name, given, _, asked in ends if world.ours.word not in json.dumps(owner.ask(asked, given))]
    assert nobodys == [*["datasetVersionDiff"] * 3, "baseModels", "compareRuns"]
