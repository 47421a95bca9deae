"""How GraphQL is served by HTTP: the views, and who is asking."""

from __future__ import annotations

import json
import logging
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseNotAllowed, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from strawberry.django.views import AsyncGraphQLView, GraphQLView

from accounts.principals import principal_of
from accounts.tokens import InvalidToken
from common.errors import DomainError, Invalid, NotSignedIn
from common.graphql import NOBODY, Context, as_graphql_error
from common.outages import AWAY, told
from common.tenancy import Principal
from common.text import is_storable
from common.threads import in_thread
from common.throttle import Standing
from platform_site.askers import credentials_in
from platform_site.execution import DATABASE_AWAY
from platform_site.limits.documents import ALLOWED
from platform_site.limits.requests import count_request, headers, too_many
from platform_site.outage_log import sparingly_if_away
from platform_site.streams import until_lapsed

logger = logging.getLogger(__name__)

ANSWER_TOO_LARGE = Invalid(
    f"The answer is over {ALLOWED.answer_bytes // 1_000_000} MB: ask for fewer items or fields. "
    "What mutations have done stays done.",
    code="ANSWER_TOO_LARGE",
)
NOT_A_STREAM = Invalid("This address streams: send `Accept: text/event-stream`.", code="NOT_A_STREAM")


def principal_from(authorization: object) -> Principal:
    """Who an Authorization header speaks for; nobody without one. Raises InvalidToken."""
    if not isinstance(authorization, str) or not authorization:
        return NOBODY
    kind, token = credentials_in(authorization)
    if kind != "bearer":
        raise InvalidToken
    return principal_of(token)


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


class TurnedAway(Exception):
    """Somebody whose request goes no further, with what they are told, in whatever shape."""

    def __init__(self, status: int, error: DomainError, headers: dict[str, str]) -> None:
        super().__init__(status)
        self.status = status
        self.error = error
        self.headers = headers


def admit(authorization: object, address: str) -> tuple[Principal, Standing | None]:
    """Who asks, and where they stand with their requests a minute, where that can be counted. Raises TurnedAway."""
    try:
        principal = principal_from(authorization)
    except InvalidToken:
        standing = count_request(NOBODY, address)  # who tries tokens out is held to a limit, too
        raise unauthenticated() if standing is None or standing.passes else limited(standing) from None
    except AWAY as error:
        raise unavailable(error) from error
    standing = count_request(principal, address)
    if standing is not None and not standing.passes:
        raise limited(standing)
    return principal, standing


def admitted(request: HttpRequest) -> tuple[Principal, Standing | None]:
    """`admit` for a view. Raises Refused."""
    try:
        return admit(request.headers.get("Authorization"), request.META.get("REMOTE_ADDR", ""))
    except TurnedAway as away:
        raise Refused(refused(away.error, away.status, away.headers)) from None


def with_standing(response: HttpResponseBase, standing: Standing | None) -> HttpResponseBase:
    for name, value in headers(standing).items() if standing else ():
        response.headers[name] = value
    return response


def limited(standing: Standing) -> TurnedAway:
    return TurnedAway(429, too_many(standing), headers(standing))


def refused(error: DomainError, status: int, headers: dict[str, str] | None = None) -> HttpResponse:
    """A refusal of the whole request."""
    return JsonResponse(shaped(error), status=status, headers=headers)


def shaped(error: DomainError) -> dict[str, Any]:
    """In the shape of GraphQL's answers."""
    shown = as_graphql_error(error)
    return {"data": None, "errors": [{"message": shown.message, "extensions": shown.extensions}]}


def unavailable(error: Exception) -> TurnedAway:
    logger.warning("%s", told(error), extra=sparingly_if_away(error))
    return TurnedAway(503, DATABASE_AWAY, {"Retry-After": str(DATABASE_AWAY.retry_after_s)})


def unauthenticated() -> TurnedAway:
    """One answer to each token that is not valid, whatever is wrong with it."""
    return TurnedAway(401, NotSignedIn(), {"WWW-Authenticate": "Bearer"})
