"""How GraphQL is executed: inside which scopes, for whom, and how what goes wrong is worded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from uuid import uuid4

from django.conf import settings
from graphql import (
    ExecutionResult,
    FieldNode,
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    OperationType,
    ValueNode,
    get_operation_ast,
)
from strawberry.extensions import ParserCache, SchemaExtension
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from common.errors import DomainError, Invalid, NotSignedIn, TooManyAttempts, Unavailable
from common.graphql import WAITS, Context, Refusal, as_graphql_error
from common.outages import told, will_pass
from common.tenancy import Principal, in_scope, reading, tenant
from common.text import shortened
from platform_site.columns import ASK, column
from platform_site.limits.documents import ALLOWED, in_our_words
from platform_site.outage_log import sparingly_if_away

logger = logging.getLogger(__name__)

ECHO_LIMIT = 300  # characters of a message that is none of ours
DATABASE_AWAY = Unavailable("The database cannot be reached; try again in a moment.")
ANSWER_TOO_LONG = Invalid(
    f"The answer has over {ALLOWED.answer_fields:,} fields: ask for fewer items or fields. "
    "What mutations have done stays done.",
    code="ANSWER_TOO_LARGE",
)


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
            with self._scope(reading):
                return super().execute_operation(serially)
        except GraphQLError as error:
            return ExecutionResult(None, [error])

    def execute_field(
        self, parent_type: Any, source: Any, field_details_list: Any, path: Any, position_context: Any
    ) -> Any:
        self.fields += 1
        if self.fields > ALLOWED.answer_fields:
            raise as_graphql_error(ANSWER_TOO_LONG)  # so does each that is still to come, and takes no time
        known = column(parent_type, field_details_list[0].node.name.value)
        if known is not None and (answer := known.of(source)) is not ASK:
            return answer
        execute: Any = super().execute_field
        if parent_type is not self.schema.mutation_type:
            return execute(parent_type, source, field_details_list, path, position_context)
        waits = self._waits(parent_type, field_details_list)
        with nullcontext() if waits else self._scope(tenant, path):
            answer = execute(parent_type, source, field_details_list, path, position_context)
        if path.key not in self.context_value.refusals:
            self.context_value.has_changed_something = True
        return answer

    def complete_value(
        self, return_type: Any, field_details_list: Any, info: Any, path: Any, result: Any, position_context: Any
    ) -> Any:
        complete: Any = super().complete_value
        if path.prev is not None or info.parent_type is not self.schema.mutation_type:
            return complete(return_type, field_details_list, info, path, result, position_context)
        if isinstance(result, Refusal):
            self.context_value.refusals[path.key] = result.refusal
        with nullcontext() if in_scope() else tenant(self.context_value.principal):
            return complete(return_type, field_details_list, info, path, result, position_context)

    @contextmanager
    def _scope(self, of: Callable[[Principal], AbstractContextManager[None]], path: Any = None) -> Iterator[None]:
        """What breaks at its edges, as a commit may, is an error among the others: it is worded like them."""
        try:
            with of(self.context_value.principal):
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
