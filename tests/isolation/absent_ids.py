"""Ids of what is not there for somebody: another's, unknown, of another type, and what is no id."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

from strawberry import relay

from tests.isolation.askers import Asker
from tests.isolation.places import nodes
from tests.isolation.world import World

MALFORMED = [
    *("", "x", "\x00", "\ud800", "%", "'; --", "ü" * 1000, "=" * 7),
    *(relay.to_base64(*parts) for parts in [("Nothing", "1"), ("Dataset", "1\x00"), ("Dataset", "9" * 5000), ("", "")]),
]


def absent(world: World, asker: Asker, takes: str, any_type: bool = False) -> Iterator[str]:
    """Another's, one that never existed, and none at all."""
    for tenant in world.others(asker):
        yield tenant.id_of(takes)
    yield relay.to_base64(takes, uuid4())
    yield "x"


def absent_thoroughly(world: World, asker: Asker, takes: str, any_type: bool = False) -> Iterator[str]:
    """All that can be thought of. `any_type`: ids of every kind are asked for there, so own ones are right."""
    kinds = nodes() if any_type else sorted({takes, "Upload", "User"})
    for tenant in world.others(asker):
        yield from (tenant.id_of(kind) for kind in kinds)
        yield str(tenant.rows[takes].pk)
    yield from (relay.to_base64(kind, uuid4()) for kind in kinds)
    yield relay.to_base64(takes, UUID(int=0))
    yield from MALFORMED
    if asker.home is not None:
        own = asker.home.rows[takes].pk
        yield from (relay.to_base64(kind, own) for kind in [*kinds, takes.lower()] if kind != takes)
        if not any_type:
            yield str(own)
            yield from (asker.home.id_of(kind) for kind in kinds if kind != takes)
