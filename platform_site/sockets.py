"""Subscriptions over websocket: thousands of sockets in one process, each of them cheap."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from datetime import timedelta
from types import NoneType
from typing import Any, cast

from django.conf import settings
from strawberry.channels import GraphQLWSConsumer
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler

from accounts.tokens import InvalidToken
from common.errors import DomainError, Invalid
from common.graphql import NOBODY, Context, as_graphql_error
from common.outages import AWAY, told
from common.text import is_storable
from common.threads import in_thread
from platform_site import lapse
from platform_site.graphql import parsed, principal_from
from platform_site.limits.requests import count_request, too_many
from platform_site.outage_log import sparingly_if_away

logger = logging.getLogger(__name__)

POLICY_VIOLATION, TOO_BIG, INTERNAL_ERROR, TRY_AGAIN_LATER = 1008, 1009, 1011, 1013
FORBIDDEN = 4403

INIT_WITHIN_S = 15.0
MAX_SUBSCRIPTIONS = 100
MAX_MESSAGE_CHARACTERS = 1_000_000
MAX_WAITING_MESSAGES = 200


class Operations(BaseGraphQLTransportWSHandler):  # type: ignore[type-arg]
    async def handle_subscribe(self, message: Any) -> None:
        refusal = await self._refusal(message["id"])
        if refusal is None:
            await super().handle_subscribe(message)
        else:
            payload = [as_graphql_error(refusal).formatted]
            await self.send_message({"id": message["id"], "type": "error", "payload": payload})

    async def _refusal(self, operation: str) -> DomainError | None:
        """What the protocol closes the connection for is left to it."""
        if not self.connection_acknowledged or operation in self.operations:
            return None
        if len(self.operations) >= MAX_SUBSCRIPTIONS:
            return Invalid(
                f"A connection carries at most {MAX_SUBSCRIPTIONS} subscriptions at a time; "
                "complete one, or open another.",
                code="TOO_MANY_SUBSCRIPTIONS",
            )
        context, socket = cast(Context, self.context), cast(GraphQLSocket, self.view)
        address = (socket.scope.get("client") or [""])[0]
        standing = await in_thread(lambda: count_request(context.principal, address))
        return None if standing is None or standing.passes else too_many(standing)


class GraphQLSocket(GraphQLWSConsumer):  # type: ignore[type-arg]
    """Subscriptions over graphql-transport-ws; the token is connection_params.authorization."""

    graphql_transport_ws_handler_class = Operations

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,),
            allowed_origins=[settings.PUBLIC_URL, *settings.CORS_ORIGINS],
            connection_init_wait_timeout=timedelta(seconds=INIT_WITHIN_S),
            **kwargs,
        )
        self.live: lapse.LiveConnection | None = None
        self.ending: asyncio.Task[None] | None = None
        self.is_closed = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Channels' own, without what nobody here has: a channel layer, and database connections of the socket's.

        For these it takes two tasks and a thread's turn for each message.
        """
        self.scope, self.base_send, self.channel_layer = scope, send, None
        assert (await receive())["type"] == "websocket.connect"
        await self.connect()
        try:
            while (message := await receive())["type"] == "websocket.receive":
                await self.websocket_receive(message)
            await self.disconnect(message["code"])
        finally:
            if self.live is not None:
                lapse.forget(self.live)
        self.run_task = None  # each would keep the other until the next full collection of garbage

    async def run(self, *args: Any, **kwargs: Any) -> Any:
        """A handler that breaks takes its socket with it: at one that stays open in silence a client waits for ever."""
        try:
            return await super().run(*args, **kwargs)
        except AWAY as error:
            logger.warning("%s", told(error), extra=sparingly_if_away(error))
            await self.close(TRY_AGAIN_LATER)
        except Exception:
            logger.exception("A websocket's handler broke.")
            await self.close(INTERNAL_ERROR)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if len(text_data or "") > MAX_MESSAGE_CHARACTERS:
            await self.end(TOO_BIG, f"A message has at most {MAX_MESSAGE_CHARACTERS:,} characters")
        elif self.message_queue.qsize() >= MAX_WAITING_MESSAGES:
            await self.end(POLICY_VIOLATION, "More messages than can be answered")
        else:
            await super().receive(text_data, bytes_data)

    async def send(self, text_data: str | None = None, bytes_data: bytes | None = None, close: bool = False) -> None:
        """Nothing, once it is closed: what was being answered until then is for nobody any more."""
        if not self.is_closed:
            await super().send(text_data, bytes_data, close)

    async def close(self, code: int | bool | None = None, reason: str | None = None) -> None:
        """Once: of several reasons the first one counts."""
        if not self.is_closed:
            self.is_closed = True
            await super().close(code, reason)

    async def end(self, code: int, reason: str) -> None:
        """Close without waiting for what the client still has to say: its subscriptions end first."""
        self.message_queue.put_nowait({"message": None, "disconnected": True})
        with suppress(Exception):  # it has just gone by itself
            await self.close(code, reason)

    def end_lapsed(self, reason: str) -> None:
        self.ending = asyncio.create_task(self.end(FORBIDDEN, reason))

    async def on_ws_connect(self, context: Any) -> Any:
        params = context.connection_params
        authorization = params.get("authorization") if isinstance(params, dict) else None
        try:
            context.principal = await in_thread(lambda: principal_from(authorization))
        except InvalidToken:
            raise ConnectionRejectionError from None
        if context.principal.is_nobody:  # there is nothing here for them, and nothing that would end their connection
            raise ConnectionRejectionError
        try:
            self.live = lapse.end_when_lapsed(context.principal, self.end_lapsed)
        except lapse.TooManyConnections as refusal:
            await self.end(POLICY_VIOLATION, refusal.message)
        return await super().on_ws_connect(context)

    async def get_context(self, request: Any, response: Any) -> Any:
        return Context(principal=NOBODY)

    def decode_json(self, data: str | bytes) -> object:
        """A message of the protocol's shape; the handler would end at another without a word to the client."""
        message = parsed(data)
        if message.get("payload") is None:  # which the protocol allows where it is optional
            message.pop("payload", None)
        payload = message.get("payload", {})
        if not isinstance(payload, dict) or not isinstance(message.get("id", ""), str):
            raise json.JSONDecodeError("should be a message of the protocol", "", 0)
        shapes = {"query": str, "variables": dict, "operationName": str}
        if not all(isinstance(payload.get(name), (shape, NoneType)) for name, shape in shapes.items()):
            raise json.JSONDecodeError("should be a request", "", 0)
        if message.get("type") == "subscribe" and not payload.get("query"):
            raise json.JSONDecodeError("should have a query", "", 0)
        if not is_storable(payload.get("operationName") or ""):
            raise json.JSONDecodeError("operationName should be a name", "", 0)
        return message
