"""Holds each operation to the limits, whichever way it came: by POST, over a websocket, or as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from graphql import DocumentNode, GraphQLError, GraphQLSchema
from strawberry.extensions import SchemaExtension

from common.errors import Invalid
from common.graphql import as_graphql_error
from platform_site.limits.allowed import Allowed
from platform_site.limits.cost import Items, items_of, refuse_costly

ALLOWED = Allowed()
Size = int | str | Items | None
Sizes = frozenset[tuple[str, Size]]


class DocumentLimits(SchemaExtension):
    """What is too long is not parsed, and what is too costly is not validated."""

    def on_parse(self) -> Iterator[None]:
        length = len(self.execution_context.query or "")
        if length > ALLOWED.characters:
            raise too_long(f"{length:,} characters, and {ALLOWED.characters:,} are allowed")
        yield

    def on_validate(self) -> Iterator[None]:
        execution = self.execution_context
        assert execution.graphql_document is not None
        try:
            refuse_many_values(execution.variables)
            sizes = sizes_in(execution.variables, execution.graphql_document)
            weigh_once(Asked(execution.schema._schema, execution.query or "", sizes, execution.graphql_document))
        except Invalid as refusal:
            raise as_graphql_error(refusal) from None
        yield


@dataclass(frozen=True)
class Asked:
    """All that the weight of a document depends on."""

    schema: GraphQLSchema
    query: str
    sizes: Sizes
    document: DocumentNode = field(compare=False)  # the query's


@lru_cache(maxsize=256)
def weigh_once(asked: Asked) -> None:
    """Clients send the same few documents: those that were let in are known. Raises Invalid, each time anew."""
    refuse_costly(asked.schema, asked.document, dict(asked.sizes), ALLOWED)


def sizes_in(variables: dict[str, Any] | None, document: DocumentNode) -> Sizes:
    """The variables that a document declares as far as they may be sizes of pages or batches; of all else only the name."""
    given = variables or {}
    names = {
        declared.variable.name.value
        for definition in document.definitions
        for declared in getattr(definition, "variable_definitions", None) or ()
    }
    return frozenset((name, _size(given[name])) for name in names & given.keys())


def _size(value: object) -> Size:
    if value is None or isinstance(value, int):
        return value
    items = items_of(value)
    return Items(min(items.count, ALLOWED.batch)) if items else ""


def refuse_many_values(variables: object) -> None:
    """Raises Invalid. Each value is coerced by the schema, which takes far longer than reading its JSON did."""
    waiting, found = [variables], 0
    while waiting:
        value = waiting.pop()
        inner: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        found += len(inner)
        if found > ALLOWED.values:
            raise Invalid(f"The variables hold over {ALLOWED.values:,} values.", code="TOO_MANY_VALUES")
        waiting.extend(inner)


def too_long(what: str) -> GraphQLError:
    return as_graphql_error(Invalid(f"The document has {what}.", code="TOO_LONG"))


def in_our_words(error: Exception) -> GraphQLError | None:
    """A parser's refusal that is about a limit; None for any other."""
    if isinstance(error, RecursionError) or "nested too deeply" in str(error):
        return as_graphql_error(Invalid("The document is nested too deeply.", code="TOO_DEEP"))
    if f"more than {ALLOWED.tokens} tokens" in str(error):
        return too_long(f"more than {ALLOWED.tokens:,} tokens")
    return None
