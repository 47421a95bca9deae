"""Who acts, and the scope that PostgreSQL's row level security holds a connection to.

Everything but migrations runs as `platform_app`, which sees the rows of the organizations named in the transaction's
`app.organizations`, and none without it. What spans organizations enters `operator()`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from django.db import connection, models, transaction

APP_ROLE = "platform_app"
OPERATOR_ROLE = "platform_operator"


@dataclass(frozen=True)
class Principal:
    """Who acts: a user with a role in each of their organizations, or an API key with one in its own."""

    user_id: UUID | None
    roles: Mapping[UUID, str] = field(default_factory=dict)
    closing: frozenset[UUID] = frozenset()
    """Of these organizations, those that are about to be deleted: nothing in them changes any more."""
    key_id: UUID | None = None
    requests_per_minute: int | None = None
    """The highest that their organizations allow; None where it is the installation's."""
    session: UUID | None = None
    expires_at: datetime | None = None
    """When the access token does; a request is over by then, and a subscription ends with it."""

    @property
    def is_nobody(self) -> bool:
        return self.user_id is None and self.key_id is None

    @property
    def name(self) -> str:
        """As the audit log has it: an id, which says nothing about a person who has gone."""
        return f"user:{self.user_id}" if self.user_id else f"key:{self.key_id}" if self.key_id else "nobody"

    @property
    def organizations(self) -> frozenset[UUID]:
        return frozenset(self.roles)


class TenantQuerySet(models.QuerySet[Any]):
    """Of rows that belong to an organization: who may see which, said once."""

    def visible_to(self, principal: Principal) -> Self:
        return self.filter(organization_id__in=principal.organizations)


_scope: contextvars.ContextVar[str | None] = contextvars.ContextVar("scope", default=None)


class ScopeError(RuntimeError):
    """A scope inside a scope: the inner one would silently widen or narrow the outer one."""


def in_scope() -> bool:
    return _scope.get() is not None


@contextmanager
def tenant(principal: Principal) -> Iterator[None]:
    """One transaction in which the rows of the principal's organizations exist, and no others."""
    with organizations_scope(principal.organizations):
        yield


@contextmanager
def organizations_scope(organizations: Iterable[UUID]) -> Iterator[None]:
    """`tenant` for a worker, which knows whose job it holds: lazy QuerySets must be evaluated inside."""
    value = _array(organizations)
    with _entered("tenant", transaction.atomic()):
        _set_organizations(value)
        try:
            yield
        finally:
            _unless_broken(lambda: _set_organizations(""))


@contextmanager
def reading(principal: Principal) -> Iterator[None]:
    """`tenant` for what only reads: each statement brings the scope along, and the scope ends with it.

    Statements that are sent together are one transaction to PostgreSQL, so one exchange does for BEGIN, the setting, the
    statement, and COMMIT. In a transaction that is open already, a test's say, the scope would outlast the statement:
    there it is `tenant`'s as well.
    """
    scope = tenant(principal) if connection.in_atomic_block else _entered("tenant", nullcontext())
    with scope, connection.execute_wrapper(_bringing(principal.organizations)):
        yield


BRINGING = "SET LOCAL app.organizations TO '%s';"


def _bringing(organizations: Iterable[UUID]) -> Callable[..., Any]:
    """Django's hook around each statement, which puts its scope before it."""
    scope = BRINGING % _array(organizations)

    def execute_in_scope(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        assert not many, "what reads inserts no rows"
        return execute(scope + sql, params, many, context)

    return execute_in_scope


@contextmanager
def operator() -> Iterator[None]:
    """One transaction that sees every organization's rows: claims, sweeps, look-ups of who somebody is, the admin."""
    with _entered("operator", transaction.atomic()):
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL ROLE {OPERATOR_ROLE}")
        try:
            yield
        finally:
            _unless_broken(_leave_operator)


def selected_by_operator(select: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What one SELECT finds in an operator scope: one exchange with the database, where the scope takes four."""
    if in_scope():
        raise ScopeError("an operator's look inside a scope")
    if connection.in_atomic_block:  # the role would outlast the statement
        with operator():
            return _selected(select, parameters)
    return _selected(f"SET LOCAL ROLE {OPERATOR_ROLE};{select}", parameters)


def _selected(sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


@contextmanager
def _entered(name: str, transaction: AbstractContextManager[Any]) -> Iterator[None]:
    outer = _scope.get()
    if outer is not None:
        raise ScopeError(f"{name} scope inside {outer} scope")
    token = _scope.set(name)
    try:
        with transaction:
            yield
    finally:
        _scope.reset(token)


def _array(organizations: Iterable[UUID]) -> str:
    """As PostgreSQL writes one; ids alone, so that it needs no quoting."""
    return "{" + ",".join(str(organization) for organization in organizations) + "}"


def _set_organizations(value: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('app.organizations', %s, true)", [value])


def _leave_operator() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL ROLE {APP_ROLE}")


def _unless_broken(leave: Callable[[], None]) -> None:
    """Leave the scope by hand where an outer transaction goes on, a test's say: SET LOCAL would outlast it.

    In an aborted transaction no statement runs, and the rollback that follows restores the setting.
    """
    if not connection.savepoint_ids:
        return  # the transaction ends with the scope, and SET LOCAL with the transaction
    if connection.connection is None or connection.connection.closed or connection.needs_rollback:
        return
    if not _aborted():
        leave()


def _aborted() -> bool:
    import psycopg2.extensions as psycopg2

    status: int = connection.connection.info.transaction_status
    return status in (psycopg2.TRANSACTION_STATUS_INERROR, psycopg2.TRANSACTION_STATUS_UNKNOWN)
