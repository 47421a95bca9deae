"""What a parsed document comes to, in one walk over it: a fragment is measured once, however often it is spread.

It comes before validation, which takes quadratic time for some documents, so nothing here is known to be right: types,
fields, fragments, and arguments may not exist. What is unknown is counted, and left for validation to refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    is_composite_type,
    is_object_type,
)

from common.errors import Invalid
from platform_site.limits.allowed import Allowed

PAGE_ARGUMENTS = ("first", "last")
PAGED = frozenset({"edges", "nodes"})
ONE, SEVERAL, REQUESTS = "PredictInput", "PredictBatchInput", "requests"  # inputs of fields that generate
BATCH, ANSWERS = "PredictionBatch", "results"
POINTS, WHICH = "maxPoints", "names"  # arguments of fields that draw curves
LISTS_OF_INTROSPECTION = frozenset({"types", "fields", "inputFields", "interfaces", "possibleTypes"})
META_FIELDS = {"__schema": "__Schema", "__type": "__Type"}


@dataclass(frozen=True)
class Items:
    """Of a variable that was given a list, or a batch, how many it has."""

    count: int


def items_of(value: object) -> Items | None:
    """None for what is neither."""
    if isinstance(value, dict):
        value = value.get(REQUESTS)
    return value if isinstance(value, Items) else Items(len(value)) if isinstance(value, list) else None


@dataclass(slots=True)
class Weight:
    """What a selection set comes to, with all that lies below it."""

    depth: int = 1
    aliases: int = 0
    directives: int = 0
    introspection_lists: int = 0
    fields: int = 0
    """In the answer, apart from those below."""
    alternatives: dict[str, int] = field(default_factory=dict)
    """By type: fields of an object only if it is of that type. It is of one."""
    per_item: int = 0
    """Of a connection's or a batch's selection set: fields in the answer for each item of it."""
    repeats: dict[str, int] = field(default_factory=dict)
    """For each name in the answer how often it, or a place below it, is asked for: no less than the true number."""

    @property
    def most_fields(self) -> int:
        return self.fields + max(self.alternatives.values(), default=0)

    def add(self, other: Weight, only_of: str | None) -> None:
        """Take in a fragment's selections: they stand beside ours, or count only of one type."""
        self.aliases += other.aliases
        self.directives += other.directives
        self.introspection_lists = max(self.introspection_lists, other.introspection_lists)
        self.per_item += other.per_item
        self.fields += 0 if only_of else other.fields
        for name, fields in {only_of: other.most_fields}.items() if only_of else other.alternatives.items():
            self.alternatives[name] = self.alternatives.get(name, 0) + fields
        self.depth = max(self.depth, 1 + other.depth)
        for name, count in other.repeats.items():
            self.repeats[name] = self.repeats.get(name, 0) + count


def refuse_costly(
    schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any] | None, allowed: Allowed
) -> None:
    """Raises Invalid, with a code for each limit, where any operation or fragment of the document is over one."""
    _refuse_over(allowed.definitions, len(document.definitions), "TOO_LONG", "operations and fragments")
    _Scale(schema, document, variables or {}, allowed).weigh()


def _refuse_over(limit: int, found: int, code: str, what: str) -> None:
    if found > limit:
        raise Invalid(f"This asks for {found:,} {what}, and {limit:,} are allowed.", code=code)


class _Scale:
    def __init__(
        self, schema: GraphQLSchema, document: DocumentNode, variables: Mapping[str, Any], allowed: Allowed
    ) -> None:
        self.schema, self.allowed, self.variables = schema, allowed, variables
        self.operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        fragments = [node for node in document.definitions if isinstance(node, FragmentDefinitionNode)]
        self.fragments = {node.name.value: node for node in fragments}
        self.namesakes = [node for node in fragments if self.fragments[node.name.value] is not node]
        self.defaults = _largest_defaults(self.operations)
        self.weights: dict[str, Weight] = {}
        self.open: set[str] = set()
        self.level = 0

    def weigh(self) -> None:
        for operation in self.operations:
            is_mutation = operation.operation is OperationType.MUTATION
            limit = self.allowed.mutations if is_mutation else self.allowed.root_fields
            declared = sum(self._directives(variable) for variable in operation.variable_definitions or ())
            weight = self._selections(operation.selection_set, self.schema.get_root_type(operation.operation))
            weight.directives += declared + self._directives(operation)
            self._refuse_heavy(weight)
            _refuse_over(limit, len(weight.repeats), "TOO_MANY_ROOT_FIELDS", "fields of the root")
        for name in self.fragments:
            self._fragment(name)
        for node in self.namesakes:  # nobody spreads them, but validation looks at them, too
            self._defined(node)

    def _selections(self, selection_set: SelectionSetNode, parent: Any) -> Weight:
        weight = Weight()
        with self._one_level_deeper():
            for node in selection_set.selections:
                weight.directives += self._directives(node)
                if isinstance(node, FieldNode):
                    self._add_field(weight, node, parent)
                elif isinstance(node, InlineFragmentNode):
                    kind = self._condition(node) if node.type_condition else parent
                    weight.add(self._selections(node.selection_set, kind), _only_of(kind, parent))
                elif isinstance(node, FragmentSpreadNode) and node.name.value in self.fragments:
                    kind = self._condition(self.fragments[node.name.value])
                    weight.add(self._fragment(node.name.value), _only_of(kind, parent))
        self._refuse_heavy(weight)
        return weight

    def _fragment(self, name: str) -> Weight:
        if name in self.open:
            raise Invalid(f"The fragment {name} spreads itself.", code="TOO_DEEP")
        if name not in self.weights:
            self.open.add(name)
            self.weights[name] = self._defined(self.fragments[name])
            self.open.remove(name)
        return self.weights[name]

    def _defined(self, node: FragmentDefinitionNode) -> Weight:
        weight = self._selections(node.selection_set, self._condition(node))
        weight.directives += self._directives(node)
        return weight

    def _condition(self, node: Any) -> Any:
        return self.schema.type_map.get(node.type_condition.name.value)

    def _add_field(self, weight: Weight, node: FieldNode, parent: Any) -> None:
        name = node.name.value
        definition = getattr(parent, "fields", {}).get(name)
        kind = get_named_type(definition.type) if definition else self.schema.type_map.get(META_FIELDS.get(name, ""))
        inner = self._selections(node.selection_set, kind) if node.selection_set else Weight(depth=0)

        weight.aliases += inner.aliases + bool(node.alias)
        weight.directives += inner.directives
        weight.depth = max(weight.depth, 1 + inner.depth)
        answered_as = node.alias.value if node.alias else name
        asked = max(inner.repeats.values(), default=1)
        weight.repeats[answered_as] = weight.repeats.get(answered_as, 0) + asked

        is_introspection = parent is not None and parent.name.startswith("__")
        is_list = is_introspection and name in LISTS_OF_INTROSPECTION
        weight.introspection_lists = max(weight.introspection_lists, inner.introspection_lists + is_list)

        if _is_connection(kind):
            inner_fields = inner.most_fields + inner.per_item * self._page(node, definition, self.allowed.page)
        elif predictions := self._predictions(node, definition):
            inner_fields = inner.most_fields + (inner.per_item + self.allowed.prediction) * predictions
        else:
            inner_fields = inner.most_fields * (1 if is_introspection else self._items(node, definition, parent))
        if definition is not None and POINTS in definition.args:
            inner_fields += self._points(node, definition)
        if _is_for_each_item(parent, name):
            weight.per_item += 1 + inner_fields
        else:
            weight.fields += 1 + inner_fields

    def _items(self, node: FieldNode, definition: GraphQLField | None, parent: Any) -> int:
        """How often what is below a field stands in the answer."""
        if definition is None or not _is_list_of_objects(definition.type):
            return 1
        if _is_connection(parent) or _is_for_each_item(parent, node.name.value):
            return 1  # its items are counted where the connection, or the batch, is asked for
        if any(name in definition.args for name in PAGE_ARGUMENTS):
            return self._page(node, definition, self.allowed.events)
        return self.allowed.items

    def _points(self, node: FieldNode, definition: GraphQLField) -> int:
        """What the curves that are asked for take: points are cheaper than fields, but where they are few, others were read to choose them."""
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        most, curves = self.allowed.cost, self.allowed.curves
        number = self._number(given[POINTS], most) if POINTS in given else None
        if number is None:
            number = definition.args[POINTS].default_value
        which = given.get(WHICH)
        if isinstance(which, VariableNode):
            names = self.variables.get(which.name.value)
            curves = min(curves, len(names)) if isinstance(names, list) else curves
        elif isinstance(which, ListValueNode):
            curves = min(curves, len(which.values))
        return curves * min(max(number // self.allowed.points, self.allowed.curve), most)

    def _predictions(self, node: FieldNode, definition: GraphQLField | None) -> int:
        """How many generations a field asks for; what is no list of requests is refused later, and counted as the most."""
        takes = get_named_type(definition.args["input"].type).name if definition and "input" in definition.args else ""
        if takes != SEVERAL:
            return int(takes == ONE)
        given = next((argument.value for argument in node.arguments or () if argument.name.value == "input"), None)
        if isinstance(given, ObjectValueNode):
            given = next((field.value for field in given.fields if field.name.value == REQUESTS), None)
        if isinstance(given, VariableNode):
            asked = items_of(self.variables.get(given.name.value))
        else:
            asked = Items(len(given.values)) if isinstance(given, ListValueNode) else None
        return min(asked.count, self.allowed.batch) if asked else self.allowed.batch

    def _page(self, node: FieldNode, definition: GraphQLField | None, limit: int) -> int:
        """How many items a list is asked for; what is no number is refused later, and counted as the most."""
        given = {argument.name.value: argument.value for argument in node.arguments or ()}
        numbers = [self._number(given[name], limit) for name in PAGE_ARGUMENTS if name in given]
        sizes = [number for number in numbers if number is not None]
        if not sizes:
            first = definition and definition.args.get("first")
            default = first.default_value if first else None
            sizes = [default if isinstance(default, int) else self.allowed.page]
        return min(max(0, *sizes), limit)

    def _number(self, value: Any, limit: int) -> int | None:
        """None for null, and for a variable that nobody gave: the field's default counts."""
        if isinstance(value, IntValueNode):
            return _integer(value)
        if not isinstance(value, VariableNode):
            return None
        name = value.name.value
        if name in self.variables:
            number = self.variables[name]
            return number if isinstance(number, int) or number is None else limit
        return self.defaults.get(name)

    def _directives(self, node: Any) -> int:
        count = len(node.directives or ())
        _refuse_over(self.allowed.directives_each, count, "TOO_MANY_DIRECTIVES", "directives at one place")
        return count

    def _refuse_heavy(self, weight: Weight) -> None:
        allowed = self.allowed
        repeats = max(weight.repeats.values(), default=0)
        _refuse_over(allowed.depth, weight.depth, "TOO_DEEP", "levels of fields and fragments")
        _refuse_over(allowed.aliases, weight.aliases, "TOO_MANY_ALIASES", "aliases")
        _refuse_over(allowed.directives, weight.directives, "TOO_MANY_DIRECTIVES", "directives")
        _refuse_over(allowed.repeats, repeats, "TOO_MANY_REPEATS", "fields in one place of the answer")
        lists = weight.introspection_lists
        _refuse_over(allowed.introspection_lists, lists, "TOO_DEEP", "lists of introspection inside each other")
        _refuse_over(allowed.cost, weight.most_fields, "TOO_COMPLEX", "fields in the answer")

    @contextmanager
    def _one_level_deeper(self) -> Iterator[None]:
        """Refuses before the document's depth becomes that of our stack."""
        self.level += 1
        _refuse_over(self.allowed.depth, self.level, "TOO_DEEP", "levels of fields and fragments")
        yield
        self.level -= 1


def _only_of(kind: Any, parent: Any) -> str | None:
    """The name of the one type that a fragment is for, among those that its parent may be of."""
    return kind.name if is_object_type(kind) and kind is not parent else None


def _largest_defaults(operations: list[OperationDefinitionNode]) -> dict[str, int]:
    """Of variables. Operations share fragments, and with them their weights: the largest of any counts for all."""
    defaults: dict[str, int] = {}
    for operation in operations:
        for variable in operation.variable_definitions or ():
            if isinstance(variable.default_value, IntValueNode):
                name = variable.variable.name.value
                defaults[name] = max(_integer(variable.default_value), defaults.get(name, 0))
    return defaults


def _integer(node: IntValueNode) -> int:
    return int(node.value[:10])  # no list is as long as ten digits say, and int() minds thousands of them


def _is_connection(kind: Any) -> bool:
    return kind is not None and kind.name.endswith("Connection")


def _is_for_each_item(parent: Any, name: str) -> bool:
    return (_is_connection(parent) and name in PAGED) or (
        parent is not None and parent.name == BATCH and name == ANSWERS
    )


def _is_list_of_objects(kind: Any) -> bool:
    if isinstance(kind, GraphQLNonNull):
        kind = kind.of_type
    return isinstance(kind, GraphQLList) and is_composite_type(get_named_type(kind))
