"""How GraphQL is executed and served: scopes, errors, the views, and who is asking."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseNotAllowed, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from graphql import (
    ExecutionResult,
    FieldNode,
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    OperationType,
    ValueNode,
    get_operation_ast,
)
from strawberry.django.views import AsyncGraphQLView, GraphQLView
from strawberry.extensions import ParserCache, SchemaExtension
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from accounts.principals import principal_of
from accounts.tokens import InvalidToken
from common.errors import DomainError, Invalid, NotSignedIn, TooManyAttempts, Unavailable
from common.graphql import NOBODY, WAITS, Context, Refusal, as_graphql_error
from common.outages import AWAY, told, will_pass
from common.tenancy import Principal, in_scope, tenant
from common.text import is_storable, shortened
from common.threads import in_thread
from common.throttle import Standing
from platform_site.limits.documents import ALLOWED, in_our_words
from platform_site.limits.requests import count_request, headers, too_many
from platform_site.outage_log import sparingly_if_away
from platform_site.streams import until_lapsed

logger = logging.getLogger(__name__)

ECHO_LIMIT = 300  # characters of a message that is none of ours
DATABASE_AWAY = Unavailable("The database cannot be reached; try again in a moment.")
ANSWER_TOO_LARGE = Invalid(
    f"The answer is over {ALLOWED.answer_bytes // 1_000_000} MB: ask for fewer items or fields. "
    "What mutations have done stays done.",
    code="ANSWER_TOO_LARGE",
)
ANSWER_TOO_LONG = Invalid(
    f"The answer has over {ALLOWED.answer_fields:,} fields: ask for fewer items or fields. "
    "What mutations have done stays done.",
    code="ANSWER_TOO_LARGE",
)
NOT_A_STREAM = Invalid("This address streams: send `Accept: text/event-stream`.", code="NOT_A_STREAM")


class ScopedExecution(StrawberryGraphQLCoreExecutionContext):
    """A query runs inside one tenant scope, each mutation field inside one of its own, what it returns included.

    Mutations that wait for another process, and those of people who have no tenant yet, open their own; what they
    return is completed inside one all the same.
    """

    fields = 0
    """Answered so far."""

    def execute_operation(self, serially: bool | None = None) -> Any:
        answer = self._executed(serially)
        if isinstance(answer, ExecutionResult) and self.fields > ALLOWED.answer_fields:
            return ExecutionResult(None, [as_graphql_error(ANSWER_TOO_LONG)])
        return answer

    def _executed(self, serially: bool | None) -> Any:
        kind = self.operation.operation
        if kind is not OperationType.SUBSCRIPTION and self.context_value.request is None:
            raise GraphQLError("This connection carries subscriptions; send queries and mutations by HTTP POST.")
        if kind is OperationType.SUBSCRIPTION and self.context_value.request is not None:
            raise GraphQLError("Send subscriptions over the websocket at this address, or to /graphql/stream.")
        if kind is not OperationType.QUERY:
            return super().execute_operation(serially)
        try:
            with self._scope():
                return super().execute_operation(serially)
        except GraphQLError as error:
            return ExecutionResult(None, [error])

    def execute_field(
        self, parent_type: Any, source: Any, field_details_list: Any, path: Any, position_context: Any
    ) -> Any:
        self.fields += 1
        if self.fields > ALLOWED.answer_fields:
            raise as_graphql_error(ANSWER_TOO_LONG)  # so does each that is still to come, and takes no time
        execute: Any = super().execute_field
        if parent_type is not self.schema.mutation_type:
            return execute(parent_type, source, field_details_list, path, position_context)
        waits = self._waits(parent_type, field_details_list)
        with nullcontext() if waits else self._scope(path):
            answer = execute(parent_type, source, field_details_list, path, position_context)
        if path.key not in self.context_value.refusals:
            self.context_value.has_changed_something = True
        return answer

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        is_answer = path.prev is None and info.parent_type is self.schema.mutation_type
        if is_answer and isinstance(result, Refusal):
            self.context_value.refusals[path.key] = result.refusal
        with tenant(self.context_value.principal) if is_answer and not in_scope() else nullcontext():
            return super().complete_value(return_type, field_details_list, info, path, result, position_context)

    @contextmanager
    def _scope(self, path: Any = None) -> Iterator[None]:
        """What breaks at its edges, as a commit may, is an error among the others: it is worded like them."""
        try:
            with tenant(self.context_value.principal):
                yield
        except GraphQLError:
            raise
        except Exception as error:
            raise GraphQLError(str(error), path=path and path.as_list(), original_error=error) from error

    def _waits(self, parent_type: Any, field_details_list: Any) -> bool:
        field = parent_type.fields.get(field_details_list[0].node.name.value)
        definition = field and field.extensions.get("strawberry-definition")
        return definition is None or bool(definition.metadata.get(WAITS))


class SignedIn(SchemaExtension):
    """Each query, introspection included, is for people who are signed in; in production nobody introspects.

    It comes before validation, which tells of fields, and would work for anybody.
    """

    def on_validate(self) -> Any:
        execution = self.execution_context
        if settings.PRODUCTION:
            execution.validation_rules = (*execution.validation_rules, NoSchemaIntrospectionCustomRule)
        if execution.context.principal.is_nobody and self._asks_for_something():
            raise as_graphql_error(NotSignedIn())
        yield

    def _asks_for_something(self) -> bool:
        assert self.execution_context.graphql_document is not None
        operation = get_operation_ast(self.execution_context.graphql_document, self.execution_context.operation_name)
        if operation is None or operation.operation is not OperationType.QUERY:
            return False  # a mutation knows by itself whether it is for everybody
        selections = operation.selection_set.selections
        return not all(isinstance(node, FieldNode) and node.name.value == "__typename" for node in selections)


class Documents(ParserCache):
    """A document that cannot be parsed is left to the executor, which has an answer for each kind of connection."""

    def on_parse(self) -> Iterator[None]:
        try:
            yield from super().on_parse()
        except (GraphQLError, RecursionError) as error:
            if self.execution_context.graphql_document is not None:
                raise
            if refusal := in_our_words(error):
                raise refusal from None
            yield


class Errors(SchemaExtension):
    """Refusals keep their words and code; anything unexpected is logged, and answered with a reference to the log."""

    def on_operation(self) -> Iterator[None]:
        yield
        self._word(self.execution_context.result)

    def on_stream_result(self, result: Any) -> Iterator[None]:
        """A subscription's results leave one by one, before the operation ends."""
        self._word(result)
        yield

    def _word(self, result: Any) -> None:
        errors = getattr(result, "errors", None) or []
        if errors:
            result.errors = errors = [worded(error) for error in errors]
        context = self.execution_context.context
        if context.response is not None:
            _come_again(context, errors, getattr(result, "data", None))


def _come_again(context: Context, errors: list[GraphQLError], data: dict[str, Any] | None) -> None:
    """503 where a part of the platform cannot answer now, 429 where too much was tried, and nothing came of the request.

    Where something did, a client that sends the whole again by itself would have that done twice.
    """
    raised = [error.original_error for error in errors if isinstance(error.original_error, DomainError)]
    passing = [refusal for refusal in (*raised, *context.refusals.values()) if refusal.retry_after_s is not None]
    partly_answered = any(refusal in raised for refusal in passing) and any((data or {}).values())
    if passing and not partly_answered and not context.has_changed_something:
        tried_too_much = any(isinstance(refusal, TooManyAttempts) for refusal in passing)
        context.response.status_code = 429 if tried_too_much else 503
        context.response["Retry-After"] = str(max(refusal.retry_after_s or 0 for refusal in passing))


def worded(error: GraphQLError) -> GraphQLError:
    original = error.original_error
    if original is not None and will_pass(original):
        logger.warning("%s", told(original), extra=sparingly_if_away(original))
        original = DATABASE_AWAY
    if isinstance(original, DomainError):
        refusal = as_graphql_error(original)
        return GraphQLError(
            refusal.message, nodes=error.nodes, path=error.path, extensions=refusal.extensions, original_error=original
        )
    if original is None or isinstance(original, GraphQLError):
        return _shortened(error)
    if isinstance(original, RecursionError):
        return GraphQLError("This is nested too deeply.", path=error.path, extensions={"code": "INVALID"})
    if isinstance(original, ValueError) and str(original).startswith("Exceeds the limit"):  # int()'s own, of digits
        return GraphQLError("A number here has too many digits.", extensions={"code": "INVALID"})
    if error.path is None and isinstance(next(iter(error.nodes or ()), None), ValueNode):  # a scalar refused a literal
        return _shortened(GraphQLError(error.message, nodes=error.nodes))
    reference = uuid4().hex[:12]
    logger.error("GraphQL %s failed at %s", reference, error.path, exc_info=original)
    message = f"Something went wrong on our side; its operators find it as {reference}."
    return GraphQLError(message, path=error.path, extensions={"code": "INTERNAL", "reference": reference})


def _shortened(error: GraphQLError) -> GraphQLError:
    """GraphQL's own words repeat what was sent, which may be a megabyte."""
    error.message = shortened(error.message, ECHO_LIMIT)
    return error


def principal_from(authorization: object) -> Principal:
    """Who an Authorization header speaks for; nobody without one. Raises InvalidToken."""
    if not isinstance(authorization, str) or not authorization:
        return NOBODY
    kind, _, token = authorization.partition(" ")
    if kind.lower() != "bearer":
        raise InvalidToken
    return principal_of(token.strip())


def parsed(body: str | bytes) -> Any:
    """JSON as a view can use it; JSONDecodeError, which the views answer with 400, for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:  # not UTF-8, numbers of 5,000 digits, 1,000-deep nesting
        raise json.JSONDecodeError(str(error), "", 0) from None
    if not isinstance(value, dict):
        raise json.JSONDecodeError("should be an object", "", 0)
    if not is_storable(str(value.get("operationName", ""))):  # it is echoed, and half a surrogate pair cannot be
        raise json.JSONDecodeError("operationName should be a name", "", 0)
    return value


class GraphQLHTTPView(GraphQLView):  # type: ignore[type-arg]
    """Queries and mutations: synchronous, since that takes two thirds of the asynchronous view's time."""

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if request.method == "GET" and not settings.PRODUCTION and "text/html" in request.headers.get("Accept", ""):
            return render(request, "graphiql.html")
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        try:
            self.principal, standing = admitted(request)
        except Refused as refusal:
            return refusal.response
        try:
            response: HttpResponseBase = super().dispatch(request, *args, **kwargs)
        except UnicodeDecodeError:  # of the body, before decode_json sees it
            response = HttpResponseBadRequest("The body should be JSON in UTF-8.")
        return with_standing(response, standing)

    def get_context(self, request: HttpRequest, response: HttpResponse) -> Any:
        return Context(principal=self.principal, request=request, response=response)

    def decode_json(self, data: str | bytes) -> object:
        return parsed(data)

    def encode_json(self, data: object) -> str | bytes:
        answer = super().encode_json(data)
        return answer if len(answer) <= ALLOWED.answer_bytes else super().encode_json(shaped(ANSWER_TOO_LARGE))


class GraphQLStreamView(AsyncGraphQLView):  # type: ignore[type-arg]
    """Subscriptions as server-sent events, for clients behind proxies that do not carry websockets."""

    async def dispatch(  # type: ignore[override]
        self, request: HttpRequest, *args: Any, **kwargs: Any
    ) -> HttpResponseBase:
        if request.method != "POST":  # a document in an address would be in every log on its way
            return HttpResponseNotAllowed(["POST"])
        if "text/event-stream" not in request.headers.get("Accept", ""):
            return refused(NOT_A_STREAM, 406)
        try:
            self.principal, standing = await in_thread(lambda: admitted(request))
        except Refused as refusal:
            return refusal.response
        try:
            response: HttpResponseBase = await super().dispatch(request, *args, **kwargs)
        except UnicodeDecodeError:
            response = HttpResponseBadRequest("The body should be JSON in UTF-8.")
        return with_standing(response, standing)

    async def get_context(self, request: HttpRequest, response: HttpResponse) -> Any:
        return Context(principal=self.principal)

    async def create_streaming_response(self, request: HttpRequest, stream: Any, *args: Any, **kwargs: Any) -> Any:
        return await super().create_streaming_response(
            request, lambda: until_lapsed(self.principal, stream()), *args, **kwargs
        )

    def decode_json(self, data: str | bytes) -> object:
        request = parsed(data)
        if not isinstance(request.get("query"), str) or not request["query"].strip():
            raise json.JSONDecodeError("should have a query", "", 0)
        return request


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status_code)
        self.response = response


def admitted(request: HttpRequest) -> tuple[Principal, Standing | None]:
    """Who asks, and where they stand with their requests a minute, where that can be counted. Raises Refused."""
    address = request.META.get("REMOTE_ADDR", "")
    try:
        principal = principal_from(request.headers.get("Authorization"))
    except InvalidToken:
        standing = count_request(NOBODY, address)  # who tries tokens out is held to a limit, too
        raise Refused(unauthenticated() if standing is None or standing.passes else limited(standing)) from None
    except AWAY as error:
        raise Refused(unavailable(error)) from error
    standing = count_request(principal, address)
    if standing is not None and not standing.passes:
        raise Refused(limited(standing))
    return principal, standing


def with_standing(response: HttpResponseBase, standing: Standing | None) -> HttpResponseBase:
    for name, value in headers(standing).items() if standing else ():
        response.headers[name] = value
    return response


def limited(standing: Standing) -> HttpResponse:
    return refused(too_many(standing), 429, headers(standing))


def refused(error: DomainError, status: int, headers: dict[str, str] | None = None) -> HttpResponse:
    """A refusal of the whole request."""
    return JsonResponse(shaped(error), status=status, headers=headers)


def shaped(error: DomainError) -> dict[str, Any]:
    """In the shape of GraphQL's answers."""
    shown = as_graphql_error(error)
    return {"data": None, "errors": [{"message": shown.message, "extensions": shown.extensions}]}


def unavailable(error: Exception) -> HttpResponse:
    logger.warning("%s", told(error), extra=sparingly_if_away(error))
    return refused(DATABASE_AWAY, 503, {"Retry-After": str(DATABASE_AWAY.retry_after_s)})


def unauthenticated() -> HttpResponse:
    """One answer to each token that is not valid, whatever is wrong with it."""
    return refused(NotSignedIn(), 401, {"WWW-Authenticate": "Bearer"})
