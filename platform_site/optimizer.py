"""What a document needs of the rows that it asks for: worked out once for a document, not once for a request."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import QuerySet
from graphql import FieldNode, GraphQLResolveInfo, print_ast
from strawberry_django.optimizer import DjangoOptimizerExtension
from strawberry_django.queryset import get_queryset_config


@dataclass(frozen=True)
class Needs:
    """The arguments of `select_related` and `only`."""

    related: tuple[str, ...]
    columns: tuple[str, ...]

    def of(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        if self.related:
            rows = rows.select_related(*self.related)
        if self.columns:
            rows = rows.only(*self.columns)
        get_queryset_config(rows).optimized = True
        return rows


class Optimizer(DjangoOptimizerExtension):
    """strawberry-django's, which walks the selection and the models anew for each request: a sixth of an object's time.

    Only what depends on nothing but the document is kept: joins and columns. A selection that uses a variable, and one
    that needs another query (whose rows may depend on who asks), is worked out each time.
    """

    def optimize(self, qs: Any, info: Any, *, store: Any = None) -> Any:
        raw: GraphQLResolveInfo = getattr(info, "_raw_info", info)
        if store is not None or len(raw.field_nodes) != 1 or not isinstance(qs, QuerySet) or not _is_plain(qs):
            return super().optimize(qs, info, store=store)
        (node,) = raw.field_nodes
        parent = raw.parent_type.name  # an interface's field is one node for all its types
        if (needs := _KNOWN.of(node, parent)) is not None:
            return needs.of(qs)
        optimized = super().optimize(qs, info)
        if _is_joins_and_columns(optimized) and not _uses_variables(node, raw):
            _KNOWN.note(node, parent, Needs(tuple(_paths(optimized.query.select_related)), _columns(optimized)))
        return optimized


class _ByNode:
    """By identity, for as long as the parsed document is kept: a node's own hash reads all that is in it."""

    def __init__(self) -> None:
        self._needs: dict[tuple[int, str], tuple[weakref.ref[FieldNode], Needs]] = {}

    def of(self, node: FieldNode, parent: str) -> Needs | None:
        found = self._needs.get((id(node), parent))
        return found[1] if found is not None and found[0]() is node else None

    def note(self, node: FieldNode, parent: str, needs: Needs) -> None:
        key = id(node), parent
        self._needs[key] = weakref.ref(node, lambda _: self._needs.pop(key, None)), needs

    def __len__(self) -> int:
        return len(self._needs)


_KNOWN = _ByNode()


def _is_plain(rows: QuerySet[Any]) -> bool:
    """Whether nobody has yet said what is to be fetched."""
    names, are_left_out = rows.query.deferred_loading
    has_all_columns = are_left_out and not names
    return rows.query.select_related is False and has_all_columns and _is_of_one_query(rows)


def _is_of_one_query(rows: QuerySet[Any]) -> bool:
    query: Any = rows
    return not query._prefetch_related_lookups and not rows.query.annotations and query._result_cache is None


def _is_joins_and_columns(rows: QuerySet[Any]) -> bool:
    """Whether `select_related` with names and `only` are all that would be done again."""
    names, are_left_out = rows.query.deferred_loading
    only = not are_left_out or not names
    return only and rows.query.select_related is not True and _is_of_one_query(rows)


def _uses_variables(node: FieldNode, info: GraphQLResolveInfo) -> bool:
    """Below the field, whose own arguments say which rows, not what of them. A "$" in a text counts, too."""
    parts = (node.selection_set, *info.fragments.values())
    return any("$" in print_ast(part) for part in parts if part is not None)


def _columns(rows: QuerySet[Any]) -> tuple[str, ...]:
    names, are_left_out = rows.query.deferred_loading
    return () if are_left_out else tuple(names)


def _paths(related: Any, prefix: str = "") -> Iterator[str]:
    """The leaves of `{"dataset_version": {"dataset": {}}}`: `dataset_version__dataset`."""
    for name, further in (related or {}).items():
        if further:
            yield from _paths(further, f"{prefix}{name}__")
        else:
            yield f"{prefix}{name}"
