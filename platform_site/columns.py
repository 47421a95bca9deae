"""Columns are answered as they were read: without a resolver, and all that surrounds one for each field of each row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.db.models.query_utils import DeferredAttribute
from graphql import GraphQLField, GraphQLNonNull, GraphQLObjectType, is_leaf_type
from strawberry import relay
from strawberry_django.fields.field import StrawberryDjangoField

from common.graphql import ModelNode

ASK = object()
"""What a column says that does not know: its resolver does, and words what is wrong."""
KEPT_AS = "column"
OF_NODE = "_id"  # what relay.Node calls its field `id`


@dataclass(frozen=True, slots=True)
class Column:
    """A field that has no resolver of its own: its answer is the row's value, as its scalar writes it."""

    model: type[Model]
    attribute: str
    may_be_null: bool
    written: Callable[[Any], Any]

    def of(self, row: object) -> Any:
        """The answer; ASK where the value was not read with the row, or cannot be written."""
        if not isinstance(row, self.model):
            return ASK
        value = row.__dict__.get(self.attribute, ASK)
        if value is None:
            return None if self.may_be_null else ASK
        if value is ASK:
            return ASK
        try:
            return self.written(value)
        except Exception:
            return ASK


def column(parent: GraphQLObjectType, name: str) -> Column | None:
    """What a field of a type is as a column, if it is one: looked at once, and kept with the field."""
    field = parent.fields.get(name)
    if field is None:  # __typename
        return None
    if KEPT_AS not in field.extensions:
        field.extensions[KEPT_AS] = _as_column(parent, field)
    found: Column | None = field.extensions[KEPT_AS]
    return found


def _as_column(parent: GraphQLObjectType, field: GraphQLField) -> Column | None:
    origin = getattr(parent.extensions.get("strawberry-definition"), "origin", None)
    model = getattr(getattr(origin, "__strawberry_django_definition__", None), "model", None)
    definition = field.extensions.get("strawberry-definition")
    kind: Any = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
    if origin is None or model is None or definition is None or definition.extensions or not is_leaf_type(kind):
        return None
    may_be_null = kind is field.type
    if issubclass(origin, ModelNode) and definition.python_name == OF_NODE:
        return Column(model, model._meta.pk.attname, may_be_null, lambda key: relay.to_base64(parent.name, str(key)))
    if not isinstance(definition, StrawberryDjangoField) or definition.base_resolver or field.args:
        return None
    attribute = definition.django_name or definition.python_name
    if type(getattr(model, attribute, None)) is not DeferredAttribute:  # a relation, a file, a property
        return None
    return Column(model, attribute, may_be_null, kind.coerce_output_value)
