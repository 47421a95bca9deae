"""What a document needs of the rows that it asks for: worked out once for a document, not once for a request."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.db.models import Model, QuerySet
from graphql import FieldNode, GraphQLResolveInfo, OperationType, print_ast
from strawberry_django.optimizer import DjangoOptimizerExtension, is_optimized
from strawberry_django.queryset import get_queryset_config

from platform_site.postgresql.compiler import HINT, Wordings


@dataclass(frozen=True)
class Needs:
    """The arguments of `select_related` and `only`."""

    related: tuple[str, ...]
    columns: tuple[str, ...]
    wordings: Wordings = field(default_factory=Wordings, compare=False, repr=False)
    """The SQL around the conditions."""

    def of(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        if self.related:
            rows = rows.select_related(*self.related)
        if self.columns:
            rows = rows.only(*self.columns)
        get_queryset_config(rows).optimized = True
        setattr(rows.query, HINT, self.wordings)
        return rows


class Optimizer(DjangoOptimizerExtension):
    """strawberry-django's, which walks the selection and the models anew for each request: an eighth of an object's time.

    Only what depends on nothing but the document is kept: joins and columns. A selection that uses a variable, and one
    that needs another query (whose rows may depend on who asks), is worked out each time.
    """

    def optimize(self, qs: Any, info: Any, *, store: Any = None) -> Any:
        if not self.enabled.get():  # a prefetch is being prepared, and has its own way
            return qs
        raw: GraphQLResolveInfo = getattr(info, "_raw_info", info)
        if store is not None or len(raw.field_nodes) != 1 or not _is_untouched(qs):
            return super().optimize(qs, info, store=store)
        (node,) = raw.field_nodes
        place = Place(id(node), raw.parent_type.name, qs.model, raw.operation.operation)
        known = KNOWN.at(place)
        if isinstance(known, Needs):
            return known.of(qs)
        optimized = super().optimize(qs, info)
        if known is None:
            KNOWN.note(place, node, VARIES if _uses_variables(node, raw) else _needs(optimized))
        return optimized


class Place(NamedTuple):
    """Where a selection stands: a fragment's field is one node for all operations, types, and models that reach it."""

    node: int  # by identity: a node's own hash reads all that is in it
    parent: str
    model: type[Model]
    operation: OperationType


class Varies:
    """Of a selection that is worked out each time."""


VARIES = Varies()


class Known:
    """What has been worked out, for as long as the parsed document is kept."""

    def __init__(self) -> None:
        self._entries: dict[Place, tuple[weakref.ref[FieldNode], Needs | Varies]] = {}

    def at(self, place: Place) -> Needs | Varies | None:
        found = self._entries.get(place)
        return found[1] if found is not None else None

    def note(self, place: Place, node: FieldNode, needs: Needs | Varies) -> None:
        self._entries[place] = weakref.ref(node, lambda _: self._entries.pop(place, None)), needs

    def __iter__(self) -> Iterator[Needs | Varies]:
        return (needs for _, needs in list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)


KNOWN = Known()


def _is_untouched(rows: Any) -> bool:
    """Whether nobody has yet said what is to be fetched."""
    return (
        isinstance(rows, QuerySet)
        and not is_optimized(rows)
        and rows.query.select_related is False
        and _named_columns(rows) is None
        and _is_of_one_query(rows)
    )


def _needs(rows: QuerySet[Any]) -> Needs | Varies:
    """What made `rows` of untouched ones, if joins and columns are all."""
    columns, related = _named_columns(rows), rows.query.select_related
    if related is True or not _is_of_one_query(rows):
        return VARIES
    return Needs(tuple(_paths(related)), tuple(columns or ()))


def _named_columns(rows: QuerySet[Any]) -> set[str] | None:
    """Those that `only` was called with."""
    names, are_left_out = rows.query.deferred_loading
    return None if are_left_out else set(names)


def _is_of_one_query(rows: QuerySet[Any]) -> bool:
    query: Any = rows
    return not query._prefetch_related_lookups and not rows.query.annotations and query._result_cache is None


def _uses_variables(node: FieldNode, info: GraphQLResolveInfo) -> bool:
    """Below the field, whose own arguments say which rows, not what of them. A "$" in a text counts, too."""
    parts = (node.selection_set, *info.fragments.values())
    return any("$" in print_ast(part) for part in parts if part is not None)


def _paths(related: Any, prefix: str = "") -> Iterator[str]:
    """The leaves of `{"dataset_version": {"dataset": {}}}`: `dataset_version__dataset`."""
    for name, further in (related or {}).items():
        if further:
            yield from _paths(further, f"{prefix}{name}__")
        else:
            yield f"{prefix}{name}"
