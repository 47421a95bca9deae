"""Subscriptions over websocket: thousands of sockets in one process, each of them cheap."""

from __future__ import annotations

import json
import logging
from types import NoneType
from typing import Any

from django.conf import settings
from strawberry.channels import GraphQLWSConsumer
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL

from accounts.tokens import InvalidToken
from common.graphql import NOBODY, Context
from common.outages import AWAY, told
from common.text import is_storable
from common.threads import in_thread
from platform_site.graphql import parsed, principal_from
from platform_site.outage_log import sparingly_if_away

logger = logging.getLogger(__name__)

INTERNAL_ERROR, TRY_AGAIN_LATER = 1011, 1013


class GraphQLSocket(GraphQLWSConsumer):  # type: ignore[type-arg]
    """Subscriptions over graphql-transport-ws; the token is connection_params.authorization."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL,), allowed_origins=[settings.PUBLIC_URL], **kwargs
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Channels' own, without what nobody here has: a channel layer, and database connections of the socket's.

        For these it takes two tasks and a thread's turn for each message.
        """
        self.scope, self.base_send, self.channel_layer = scope, send, None
        assert (await receive())["type"] == "websocket.connect"
        await self.connect()
        while (message := await receive())["type"] == "websocket.receive":
            await self.websocket_receive(message)
        await self.disconnect(message["code"])
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

    async def on_ws_connect(self, context: Any) -> Any:
        params = context.connection_params
        authorization = params.get("authorization") if isinstance(params, dict) else None
        try:
            context.principal = await in_thread(lambda: principal_from(authorization))
        except InvalidToken:
            raise ConnectionRejectionError from None
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
