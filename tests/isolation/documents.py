"""Documents and their variables, made from the schema: nobody has to think of a new field."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from graphql import (
    GraphQLField,
    GraphQLUnionType,
    Undefined,
    get_named_type,
    is_composite_type,
    is_interface_type,
    is_leaf_type,
    is_non_null_type,
    is_required_argument,
    is_union_type,
)

from platform_site.schema import schema
from tests.isolation.operations import OPERATIONS
from tests.isolation.places import Place, ids_within, root
from tests.isolation.world import Tenant

REFUSAL = "... on OperationInfo { messages { kind code field message } }"


def leaves(kind: Any, *inner: str) -> str:
    """All of a type that is no object itself, and `inner`."""
    if isinstance(kind, GraphQLUnionType):
        of_each = [f"... on {each.name} {{ {leaves(each)} }}" for each in kind.types if each.name != "OperationInfo"]
        refusal = [REFUSAL] if any(each.name == "OperationInfo" for each in kind.types) else []
        return " ".join(["__typename", *of_each, *refusal])
    plain = [_asked(name, field) for name, field in kind.fields.items() if is_leaf_type(get_named_type(field.type))]
    for name, field in kind.fields.items():
        if is_union_type(get_named_type(field.type)):  # what became of each of several requests is no object of its own
            plain.append(f"{name} {{ {leaves(get_named_type(field.type))} }}")
    if kind.name.endswith("Connection"):
        inner = (f"edges {{ cursor node {{ {leaves(node_of(kind), *inner)} }} }}",)
    if is_interface_type(kind):
        inner = ("__typename", *_of_each(kind))
    return " ".join([*plain, *inner]) or "__typename"


def _of_each(interface: Any) -> Iterator[str]:
    """Leaves of each type that has the interface. Where two differ in the type of a field, it gets a name of its own."""
    each = schema._schema.get_implementations(interface).objects
    types: defaultdict[str, set[str]] = defaultdict(set)
    for kind in each:
        for name, field in kind.fields.items():
            types[name].add(str(field.type))
    for kind in each:
        own = {name: field for name, field in kind.fields.items() if is_leaf_type(get_named_type(field.type))}
        told = [
            _asked(name, field) if len(types[name]) == 1 else f"{kind.name}_{name}: {_asked(name, field)}"
            for name, field in own.items()
        ]
        yield f"... on {kind.name} {{ {' '.join(told)} }}"


def _asked(name: str, field: GraphQLField) -> str:
    """A field with what it has to be given, which is a choice: the first that there is."""
    needed = {key: get_named_type(each.type) for key, each in field.args.items() if is_required_argument(each)}
    given = ", ".join(f"{key}: {next(iter(choices.values))}" for key, choices in needed.items())
    return f"{name}({given})" if given else name


def node_of(connection: Any) -> Any:
    edge = get_named_type(connection.fields["edges"].type)
    return get_named_type(edge.fields["node"].type)


def document(kind: str, name: str, *inner: str) -> str:
    """The operation with its ids, and what the table gives beside them, as variables; `inner` is asked of the answer."""
    field: GraphQLField = root(kind).fields[name]
    taken = [argument for argument in field.args if argument in _given(kind, name)]
    answer = get_named_type(field.type)
    declared = ", ".join(f"${argument}: {field.args[argument].type}" for argument in taken)
    given = ", ".join(
        [f"{argument}: ${argument}" for argument in taken] + (["first: 3"] if "first" in field.args else [])
    )
    selection = f" {{ {leaves(answer, *inner)} }}" if is_composite_type(answer) else ""
    head = f"{kind} ({declared})" if declared else kind
    return f"{head} {{ {name}{f'({given})' if given else ''}{selection} }}"


def _given(kind: str, name: str) -> set[str]:
    args = root(kind).fields[name].args
    return {path[0] for path in ids_within(args)} | {"input"} & args.keys() | OPERATIONS[name].arguments.keys()


def variables(kind: str, name: str, tenant: Tenant) -> dict[str, Any]:
    """An organization's own ids, and what the table says of the rest. Raises AssertionError for what it does not say."""
    operation, field = OPERATIONS[name], root(kind).fields[name]
    values: dict[str, Any] = {}
    for path in ids_within(field.args):
        put(values, path, tenant.id_of(Place(kind, name, path).takes))
    into = values.setdefault("input", {}) if "input" in field.args else values
    _merge(into, operation.arguments)
    takes = get_named_type(field.args["input"].type).fields if "input" in field.args else field.args
    lacking = [argument for argument, each in takes.items() if _is_required(each) and argument not in into]
    assert not lacking, f"`{name}` needs {', '.join(lacking)}: give an example in OPERATIONS, {lacking[0]}=..."
    return values


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _is_required(argument: Any) -> bool:
    return is_non_null_type(argument.type) and argument.default_value is Undefined


def put(values: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        values = values.setdefault(name, {})
    values[path[-1]] = value
