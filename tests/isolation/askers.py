"""Whoever may ask, each with what they show: a token, a key, or nothing. Requests are executed in this process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse

from accounts.models import Role
from accounts.permissions import FOR_PEOPLE, ROLES, Permission
from common.graphql import Context
from common.tenancy import Principal
from common.threads import in_thread
from platform_site.graphql import principal_from
from platform_site.schema import schema

if TYPE_CHECKING:
    from tests.isolation.world import Tenant


@dataclass(frozen=True)
class Asker:
    """`home` is the one organization that they belong to, `role` what they are there."""

    name: str
    token: str | None
    home: Tenant | None = None
    role: Role | None = None
    is_key: bool = False

    @property
    def is_anonymous(self) -> bool:
        return self.token is None

    def principal(self) -> Principal:
        """Looked up anew for each request, as the views do."""
        return principal_from(self.token and f"Bearer {self.token}")

    def may(self, permission: Permission) -> bool:
        """What the table in accounts.permissions says."""
        allowed = self.role is not None and permission in ROLES[self.role]
        return allowed and not (self.is_key and permission in FOR_PEOPLE)

    def ask(self, document: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The answer to a query or a mutation, or all that a subscription says until it ends."""
        if document.startswith("subscription"):
            return asyncio.run(self.listen(document, variables))
        context = Context(principal=self.principal(), request=HttpRequest(), response=HttpResponse())
        return _shaped(schema.execute_sync(document, variables, context_value=context))

    async def listen(self, document: str, variables: dict[str, Any]) -> dict[str, Any]:
        principal = await in_thread(self.principal)
        results: Any = await schema.subscribe(document, variables, context_value=Context(principal=principal))
        heard = [_shaped(result) async for result in results]
        refused = [answer for answer in heard if "errors" in answer]
        return refused[0] if refused else {"data": [answer["data"] for answer in heard]}


def _shaped(result: Any) -> dict[str, Any]:
    if not result.errors:
        return {"data": result.data}
    return {"data": result.data, "errors": [error.formatted for error in result.errors]}
