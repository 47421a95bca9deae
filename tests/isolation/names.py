"""For the name of another's adapter everybody gets, byte for byte, the answer to a name that nobody has given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from graphql import GraphQLInputObjectType, get_named_type

from tests.isolation.askers import Asker
from tests.isolation.documents import document, put, variables
from tests.isolation.flaws import expect_none
from tests.isolation.foreign_ids import is_absence
from tests.isolation.places import ROOTS, Place, fields
from tests.isolation.snapshot import changed, snapshot
from tests.isolation.world import World

NAMES, INSTEAD_OF = "model", "adapterId"
NOBODYS = [
    *("nobodys:1", "nobodys", ":1", "1", "", ":", "nobodys:", "nobodys:0", "nobodys:01", "nobodys:²", "nobodys:-1"),
    *(f"nobodys:{'9' * 5000}", "nobodys:4294967296", "nobodys\x00:1", "\ud800:1", "nobodys:1\n", "%:1"),
    "platform/python-small:1",
]


def names_within(arguments: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The paths of all arguments that name a model, those inside inputs included."""
    for name, argument in arguments.items():
        inner = get_named_type(argument.type)
        if name == NAMES and inner.name == "String":
            yield (name,)
        elif isinstance(inner, GraphQLInputObjectType):
            yield from ((name, *path) for path in names_within(inner.fields))


def name_places() -> list[Place]:
    return [
        Place(kind, name, path) for kind, name, field in fields() if kind in ROOTS for path in names_within(field.args)
    ]


def name_place(text: str) -> Place:
    (found,) = (each for each in name_places() if str(each) == text)
    return found


def check_foreign_names(world: World, place: Place, *askers: str) -> None:
    """Raises AssertionError that names the place, the asker, and the names that were answered otherwise."""
    before, flaws = snapshot(), []
    for name in askers or world.askers:
        flaws += list(_told_apart(world, place, world.askers[name]))
    if tables := changed(before):
        flaws.append(f"{place} changes {', '.join(tables)}")
    expect_none(flaws)


def _told_apart(world: World, place: Place, asker: Asker) -> Iterator[str]:
    asked, answers = document(place.kind, place.field), set()
    theirs = [str(tenant.rows["Adapter"]) for tenant in world.others(asker)]
    for name in [*theirs, *(f"{each.rpartition(':')[0]}:2" for each in theirs), *NOBODYS]:
        given = variables(place.kind, place.field, asker.home or world.ours)
        put(given, place.path, name)
        put(given, (*place.path[:-1], INSTEAD_OF), None)
        answer = asker.ask(asked, given)
        answers.add(json.dumps(answer))
        if not is_absence(place, asker, answer):
            yield f"{place} as {asker.name}: {name!r:.80} is answered {json.dumps(answer)[:300]}"
    if len(answers) != 1:
        yield f"{place} as {asker.name}: {len(answers)} answers, which should be one: {sorted(answers)}"
