"""From whatever somebody sees, no way through the schema leads to another's: each path of it is walked."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import Any

from graphql import get_named_type, is_composite_type, is_non_null_type

from tests.isolation.askers import Asker
from tests.isolation.documents import document, leaves, node_of, put, variables
from tests.isolation.flaws import expect_none
from tests.isolation.places import ids_within, nodes, root
from tests.isolation.world import Tenant, World

HOPS = 3
REFUSALS = {"TOO_COMPLEX", "UNAUTHENTICATED", "NOT_ALLOWED"}

Path = tuple[str, ...]
Walk = tuple[str, dict[str, Any], Path, str]


def check_walks(
    world: World, *askers: str, roots: Collection[str] = (), apart_from: Collection[str] = (), hops: int = HOPS
) -> None:
    """Raises AssertionError that names the path, the asker, and whose words were found there.

    `roots` are the queries to begin at, all by default; `apart_from` are fields, as Type.field, that are not followed.
    """
    expect_none(
        flaw
        for name in askers or world.askers
        for walk in walks(world.askers[name].home or world.ours, roots, apart_from, hops)
        for flaw in _flaws(world, world.askers[name], walk)
    )


def _flaws(world: World, asker: Asker, walk: Walk) -> Iterator[str]:
    name, given, path, asked = walk
    answer = asker.ask(asked, given)
    where = f"{'.'.join([name, *path])} as {asker.name}"
    for tenant in world.others(asker):
        if found := sorted(secret for secret in world.secrets[tenant.word] if secret in json.dumps(answer)):
            yield f"{where} leads to {tenant.word}'s: {found[:3]}"
    codes = {error.get("extensions", {}).get("code") for error in answer.get("errors", ())}
    if codes - REFUSALS:
        yield f"{where} breaks: {answer['errors']}"


def walks(
    tenant: Tenant, roots: Collection[str] = (), apart_from: Collection[str] = (), hops: int = HOPS
) -> Iterator[Walk]:
    """(field, variables, path, document) of every way from a query to an object that is `hops` fields behind it, or nearer."""
    for name, field in root("query").fields.items():
        if roots and name not in roots:
            continue
        if name == "node":
            yield from _from_nodes(tenant)
            continue
        given = variables("query", name, tenant)
        required = {key: value for key, value in given.items() if is_non_null_type(field.args[key].type)}
        if required != given:
            yield name, required, (), document("query", name)
        for path in paths(named(field), apart_from, hops):
            yield name, given, path, document("query", name, *selection(named(field), path))


def _from_nodes(tenant: Tenant) -> Iterator[Walk]:
    (id_path,) = ids_within(root("query").fields["node"].args)
    for kind in nodes():
        given: dict[str, Any] = {}
        put(given, id_path, tenant.id_of(kind))
        yield "node", given, (kind,), document("query", "node")


def named(field: Any) -> Any:
    """The type of what a field leads to; of a page of a list, that of its items."""
    kind = get_named_type(field.type)
    return node_of(kind) if kind.name.endswith("Connection") else kind


def paths(kind: Any, apart_from: Collection[str], hops: int) -> Iterator[Path]:
    """From a type through fields that are objects, as far as they go, or as far as allowed."""
    ways = [
        (name, named(field))
        for name, field in getattr(kind, "fields", {}).items()
        if is_composite_type(get_named_type(field.type)) and f"{kind.name}.{name}" not in apart_from
    ]
    if not ways or hops == 0:
        yield ()
    else:
        for name, inner in ways:
            yield from ((name, *rest) for rest in paths(inner, apart_from, hops - 1))


def selection(kind: Any, path: Path) -> list[str]:
    """What is asked of `kind` to go along the path, with all plain fields at each stop."""
    if not path:
        return []
    field = kind.fields[path[0]]
    page = "(first: 3)" if "first" in field.args else ""
    inner = selection(named(field), path[1:])
    return [f"{path[0]}{page} {{ {leaves(get_named_type(field.type), *inner)} }}"]
