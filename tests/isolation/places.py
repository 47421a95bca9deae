"""The operations of the schema, and the places in their arguments that take an id: found by introspection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from graphql import GraphQLField, GraphQLInputObjectType, GraphQLInterfaceType, GraphQLObjectType, get_named_type

from platform_site.schema import schema
from tests.isolation.operations import OPERATIONS, Operation

TYPES: dict[str, Any] = schema._schema.type_map
ROOTS = ("query", "mutation", "subscription")


def root(kind: str) -> GraphQLObjectType:
    found: GraphQLObjectType = getattr(schema._schema, f"{kind}_type")
    return found


def fields() -> Iterator[tuple[str, str, GraphQLField]]:
    """(kind of operation, name, definition) of every field of a root."""
    for kind in ROOTS:
        yield from ((kind, name, field) for name, field in root(kind).fields.items())


@dataclass(frozen=True)
class Place:
    """Where an operation takes an id; `path` leads through its inputs."""

    kind: str
    field: str
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.field}({'.'.join(self.path)})"

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.field]

    @property
    def takes(self) -> str:
        """The kind of node that is named here: organizationId is an Organization's; `id`, `a`, and `b` are what OPERATIONS says."""
        name = self.path[-1]
        if name.endswith("Id"):
            return name[0].upper() + name.removesuffix("Id")[1:]
        assert self.operation.id_is_of, f"`{self.field}` takes an id: say in OPERATIONS of what, id=..."
        return self.operation.id_is_of


def ids_within(arguments: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The paths of all arguments that are ids, those inside inputs included."""
    for name, argument in arguments.items():
        inner = get_named_type(argument.type)
        if inner.name == "ID":
            yield (name,)
        elif isinstance(inner, GraphQLInputObjectType):
            yield from ((name, *path) for path in ids_within(inner.fields))


def places(*kinds: str) -> list[Place]:
    return [
        Place(kind, name, path)
        for kind, name, field in fields()
        if kind in (kinds or ROOTS)
        for path in ids_within(field.args)
    ]


def place(text: str) -> Place:
    (found,) = (each for each in places() if str(each) == text)
    return found


def ids_below_the_roots() -> list[str]:
    """Fields of other types that take an id: nobody would look at what they answer to another's."""
    roots = {root(kind).name for kind in ROOTS}
    return [
        f"{name}.{field_name}({'.'.join(path)})"
        for name, kind in TYPES.items()
        if isinstance(kind, (GraphQLObjectType, GraphQLInterfaceType)) and name not in roots and name[:2] != "__"
        for field_name, field in kind.fields.items()
        for path in ids_within(field.args)
    ]


def nodes() -> list[str]:
    """The kinds of what has an id."""
    return sorted(kind.name for kind in schema._schema.get_implementations(TYPES["Node"]).objects)
