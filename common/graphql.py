"""What each app's schema is made with: the typed context, ids, errors, mutations, and connections.

One transaction around a whole request would commit half of a mutation that raised, so scopes are opened around each
mutation field, and around a query as a whole: platform_site/execution.py does both.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, NewType, TypeVar
from uuid import UUID

import strawberry
from django.db import models
from django.http import HttpRequest
from graphql import GraphQLError
from strawberry import relay
from strawberry.types import Info as StrawberryInfo
from strawberry_django.optimizer import is_optimized_by_prefetching
from strawberry_django.relay import DjangoCursorConnection
from strawberry_django.relay.cursor_connection import (
    DjangoCursorEdge,
    OrderedCollectionCursor,
    annotate_ordering_fields,
)

from common.errors import DomainError, Invalid, NotAllowed, NotFound, NotSignedIn, QuotaExceeded
from common.tenancy import Principal

M = TypeVar("M", bound=models.Model)
F = TypeVar("F", bound=Callable[..., Any])

NOBODY = Principal(user_id=None)
COUNTED_UP_TO = 10_000
MAX_PAGE = 100
WAITS = "opens-its-own-scopes"

BigInt = NewType("BigInt", int)


def _big_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**53:
        raise ValueError("should be a whole number up to 2^53")
    return value


BIG_INT = strawberry.scalar(
    name="BigInt",
    description="A whole number up to 2^53, as a JSON number: sizes pass 2^31.",
    serialize=int,
    parse_value=_big_int,
)


@dataclass
class Context:
    """What a resolver knows of its request."""

    principal: Principal
    request: HttpRequest | None = None  # none on a websocket
    response: Any = None
    connection_params: Any = None  # what a websocket client sent to begin with
    refusals: dict[object, DomainError] = field(default_factory=dict)  # of mutations
    has_changed_something: bool = False

    @property
    def actor(self) -> Principal:
        """Who is signed in, or the key. Raises NotSignedIn."""
        if self.principal.is_nobody:
            raise NotSignedIn
        return self.principal

    @property
    def signed_in(self) -> UUID:
        """The user that is signed in. Raises NotSignedIn."""
        if self.principal.user_id is None:
            raise NotSignedIn
        return self.principal.user_id


Info = StrawberryInfo[Context, None]


@strawberry.enum(description="What sort of message it is.")
class OperationMessageKind(Enum):
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    PERMISSION = "PERMISSION"
    VALIDATION = "VALIDATION"


@strawberry.type(description="One thing that went wrong.")
class OperationMessage:
    kind: OperationMessageKind = strawberry.field(description="What sort of message it is.")
    message: str = strawberry.field(description="What was wrong, where, and what to do, for a person.")
    field: str | None = strawberry.field(default=None, description="The input at fault.")
    code: str | None = strawberry.field(default=None, description="A stable upper-case code, for a program.")


class Refusal:
    """What a mutation answers that has changed nothing."""

    refusal: DomainError


@strawberry.type(description="What went wrong with an operation, in words for a person and codes for a program.")
class OperationInfo(Refusal):
    messages: list[OperationMessage] = strawberry.field(description="At least one.")
    refusal: strawberry.Private[DomainError]

    @classmethod
    def of(cls, error: DomainError) -> OperationInfo:
        kind = OperationMessageKind.ERROR
        if isinstance(error, (NotAllowed, NotSignedIn)):
            kind = OperationMessageKind.PERMISSION
        elif isinstance(error, Invalid):
            kind = OperationMessageKind.VALIDATION
        field = error.field and camel_case(error.field)
        message = OperationMessage(kind=kind, message=error.message, field=field, code=error.code)
        return cls(messages=[message], refusal=error)


@strawberry.type(
    name="QuotaExceeded",
    description="A limit was reached; the same fields stand in errors[].extensions of queries and subscriptions.",
)
class QuotaExceededType(Refusal):
    quota: str = strawberry.field(description="Which limit: a field of Quota.")
    message: str = strawberry.field(description="What was too much, and what to do, for a person.")
    code: str = strawberry.field(description="A stable upper-case code, for a program.")
    limit: BigInt = strawberry.field(description="How much there may be.")
    used: BigInt = strawberry.field(description="How much there is without this.")
    resets_at: datetime | None = strawberry.field(
        description="When counting begins anew; null where waiting alone does not help."
    )
    refusal: strawberry.Private[DomainError]

    @classmethod
    def of(cls, error: QuotaExceeded) -> QuotaExceededType:
        return cls(
            quota=camel_case(error.quota),
            message=error.message,
            code=error.code,
            limit=BigInt(error.limit),
            used=BigInt(error.used),
            resets_at=error.resets_at,
            refusal=error,
        )


def camel_case(path: str) -> str:
    """The API's name for an input: pure packages name theirs in snake_case."""
    return re.sub(r"_([a-z])", lambda found: found.group(1).upper(), path)


def as_graphql_error(error: DomainError) -> GraphQLError:
    """A refusal in `errors`, for queries and subscriptions."""
    extensions: dict[str, Any] = {"code": error.code}
    if error.field:
        extensions["field"] = camel_case(error.field)
    if error.retry_after_s is not None:
        extensions["retryAfter"] = error.retry_after_s
    if isinstance(error, QuotaExceeded):
        resets_at = error.resets_at and error.resets_at.isoformat()
        extensions |= {
            "quota": camel_case(error.quota),
            "limit": error.limit,
            "used": error.used,
            "resetsAt": resets_at,
        }
    return GraphQLError(error.message, extensions=extensions)


def mutation(description: str, *, waits: bool = False) -> Callable[[F], Any]:
    """A mutation whose DomainErrors become OperationInfo, or QuotaExceeded where its payload has that.

    It runs in the caller's tenant scope; one that `waits` for another process (or precedes any tenant) opens its own.
    """

    def decorate(resolver: F) -> Any:
        @functools.wraps(resolver)
        def refused_politely(*args: Any, **kwargs: Any) -> Any:
            try:
                return resolver(*args, **kwargs)
            except QuotaExceeded as error:
                may_say_so = QuotaExceededType in getattr(kwargs["info"].return_type, "types", ())
                return QuotaExceededType.of(error) if may_say_so else OperationInfo.of(error)
            except DomainError as error:
                return OperationInfo.of(error)

        return strawberry.mutation(refused_politely, description=description, metadata={WAITS: waits})

    return decorate


def model_id(global_id: str, model: type[models.Model]) -> UUID:
    """The primary key in a Relay id of `model`'s type; for any other text one that no row has, so that all look alike."""
    try:
        type_name, key = relay.from_base64(global_id)
        return UUID(key) if type_name == model.__name__ else UUID(int=0)
    except ValueError:
        return UUID(int=0)


def resolve(info: Info, global_id: str, model: type[M]) -> M:
    """The row that a Relay id names. Malformed, wrong-type, foreign, and unknown ids raise NotFound, all alike."""
    rows: Any = model._default_manager
    row: M | None = rows.visible_to(info.context.actor).filter(pk=model_id(global_id, model)).first()
    if row is None:
        raise NotFound
    return row


def resolve_or_null(info: Info, global_id: str, model: type[M]) -> M | None:
    """`resolve` for queries, where not found is null."""
    try:
        return resolve(info, global_id, model)
    except NotFound:
        return None


def sought(info: Info, global_id: str, model: type[models.Model]) -> Any:
    """`resolve_or_null` for a field to return, unevaluated: the optimizer has what is asked of the row fetched with it."""
    rows: Any = model._default_manager
    found = rows.visible_to(info.context.actor).filter(pk=model_id(global_id, model))
    # There is one at most, and the model's own order would be worded and planned in vain. Rows without any order would be
    # given one by their key, after the query was copied once more.
    return found.order_by("pk")


class ModelNode(relay.Node):
    """A node of a model: its id is the row's key."""

    @classmethod
    def resolve_id_attr(cls) -> str:
        """Said once. strawberry-django would look through the type's annotations for each id of each answer."""
        return "pk"


NodeType = TypeVar("NodeType", bound=relay.Node)


@strawberry.type(name="Edge", description="An item of a list, with its place.")
class KeysetEdge(DjangoCursorEdge[NodeType]):
    pass


@strawberry.type(name="Connection", description="A page of a list, newest first.")
class KeysetConnection(DjangoCursorConnection[NodeType]):
    """Keyset-paged: the last page costs what the first does."""

    edges: list[KeysetEdge[NodeType]] = strawberry.field(description="The page.")  # type: ignore[assignment]

    @classmethod
    def resolve_connection(cls, nodes: Any, *, info: Any, **arguments: Any) -> Any:
        """A page of at most 100, also where nobody says how many. Raises Invalid."""
        for name in ("first", "last"):
            size = arguments.get(name)
            if size is not None and not 0 <= size <= MAX_PAGE:
                raise Invalid(f"{name} should be from 0 to {MAX_PAGE}.", field=name)
        if arguments.get("first") is None and arguments.get("last") is None:
            arguments["first"] = MAX_PAGE
        try:
            bounded = _bounded(nodes, arguments.get("after"), arguments.get("before"))
            page: Any = super().resolve_connection(bounded, info=info, **arguments)
        except ValueError:
            raise Invalid("after and before should be cursors that this list has given out.") from None
        page.total_count_qs = nodes
        return page

    @strawberry.field(description="How many there are in all; null past 10,000.")
    def total_count(self) -> int | None:
        assert self.total_count_qs is not None
        counted = self.total_count_qs.order_by()[: COUNTED_UP_TO + 1].count()
        return counted if counted <= COUNTED_UP_TO else None


def _bounded(nodes: models.QuerySet[Any], after: str | None, before: str | None) -> models.QuerySet[Any]:
    """`nodes`, newest first, without those that a cursor's first value rules out. Raises ValueError.

    The connection's own condition, (a < x) or (a = x and b < y), bounds no index scan: PostgreSQL reads all rows up to
    the cursor to skip them, a million for the last page of a million.
    """
    if is_optimized_by_prefetching(nodes):  # its page has been read
        return nodes
    _, places, _ = annotate_ordering_fields(nodes)
    for cursor, lookup in ((after, "lte"), (before, "gte")):
        if cursor:
            newest = OrderedCollectionCursor.from_cursor(cursor, places).field_values[0]
            if isinstance(newest, datetime) and newest.utcoffset() != timedelta(0):
                raise ValueError("Ours are in UTC; PostgreSQL knows no zone that is a day away.")
            nodes = nodes.filter(**{f"{places[0].attname}__{lookup}": newest})
    return nodes
