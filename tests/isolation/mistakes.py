"""Mistakes that somebody might make: what the code would do then, in place of what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from strawberry import relay

from accounts import permissions
from accounts.models import Role
from common import graphql, tenancy
from common.errors import Invalid, NotAllowed, NotFound
from common.jobs import JobStatus
from common.tenancy import Principal
from common.threads import in_thread
from datasets.models import DatasetVersion
from datasets.receive import arrival
from inference.actions import Permit
from platform_site import graphql as views
from tests.isolation.leak import Patch
from tests.isolation.world import World


def all_of_them(rows: Any, principal: Principal) -> Any:
    return rows.all()


def with_any_role(rows: Any, principal: Principal) -> Any:
    return rows.filter(organization_id__in=principal.organizations)


def unasked(*args: Any, **kwargs: Any) -> None:
    """In place of an authorization."""


def of_any_role(actor: Principal, permission: Any, organization_id: UUID) -> None:
    """Whoever is something somewhere is it everywhere."""
    if actor.is_nobody or actor.key_id is not None:
        return permissions.authorize_look(actor, permission, organization_id)
    permissions_of = [permissions.ROLES[Role(role)] for role in actor.roles.values()]
    if not any(permission in each for each in permissions_of):
        raise NotAllowed("no")
    return None


def a_query_of_any(info: Any, given: Any, model: Any) -> Any:
    """The same, of a field that goes on with the query."""
    return model._default_manager.filter(pk=graphql.model_id(given, model))


def whoever_asks(info: Any, global_id: str, model: Any) -> Any:
    """A look-up that forgets who is asking."""
    row = model._default_manager.filter(pk=graphql.model_id(global_id, model)).first()
    if row is None:
        raise NotFound
    return row


def or_null(info: Any, global_id: str, model: Any) -> Any:
    return model._default_manager.filter(pk=graphql.model_id(global_id, model)).first()


def and_says_whose(info: Any, global_id: str, model: Any) -> Any:
    """A look-up that is polite about what is somebody else's."""
    row = whoever_asks(info, global_id, model)
    if not model._default_manager.visible_to(info.context.actor).filter(pk=row.pk).exists():
        raise NotAllowed("This belongs to another organization.")
    return row


def particular(global_id: str, model: Any) -> UUID:
    """`model_id` that explains what is wrong with an id."""
    try:
        kind, key = relay.from_base64(global_id)
    except ValueError:
        raise Invalid("This is no id.", field="id") from None
    return UUID(key) if kind == model.__name__ else UUID(int=0)


def of_any_type(global_id: str, model: Any) -> UUID:
    try:
        return UUID(relay.from_base64(global_id)[1])
    except ValueError:
        return UUID(int=0)


def found_by_its_bytes(organization_id: UUID, hashed: str) -> Any:
    return DatasetVersion.objects.filter(fingerprint=hashed, status=JobStatus.SUCCEEDED).first()


def page_of_all_jobs(job: Any, after: int, limit: int) -> list[Any]:
    return list(type(job).event_model.objects.filter(sequence__gt=after).order_by("sequence")[:limit])


def seen_as(change: Callable[[Principal, World], Principal]) -> Callable[[Patch, World], None]:
    """Tokens and keys that speak for somebody a little different."""

    def open_(patch: Patch, world: World) -> None:
        as_it_is = views.principal_of
        patch.setattr(views, "principal_of", lambda token: change(as_it_is(token), world))

    return open_


def with_keys_as_owners(principal: Principal, world: World) -> Principal:
    if principal.key_id is None:
        return principal
    return Principal(None, dict.fromkeys(principal.roles, Role.OWNER.value), key_id=principal.key_id)


def as_they_were(principal: Principal, world: World) -> Principal:
    """Roles that were remembered from before the removal."""
    if principal.roles:
        return principal
    return Principal(principal.user_id, {world.ours.organization.pk: Role.OWNER.value})


def with_everybody_somebody(patch: Patch, world: World) -> None:
    patch.setattr(views, "NOBODY", world.askers["owner"].principal())


async def follow_any(info: Any, global_id: str, model: Any, after: int) -> Any:
    """A subscription that looks for the job as the platform itself does."""

    def find() -> Any:
        with tenancy.operator():
            return model.objects.filter(pk=graphql.model_id(global_id, model)).first()

    job = await in_thread(find)
    if job is None:
        raise NotFound
    yield []


def permit_for_anybody(info: Any, input: Any) -> Permit:
    return Permit("a ticket", next(iter(info.context.principal.organizations), uuid4()), key="prediction:nobody's")


@contextmanager
def everybodys(organizations: Any) -> Iterator[None]:
    with tenancy.operator():
        yield


def any_ticket(patch: Patch, world: World) -> None:
    upload = world.theirs.waiting_upload
    patch.setattr(arrival, "ids_in", lambda token: (upload.organization_id, upload.pk))


def policy(table: str, change: str) -> tuple[str, ...]:
    return (f"ALTER POLICY tenant ON {table} {change}",)


def without_reference(table: str, column: str) -> tuple[str, ...]:
    return (f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_tenant_fk",)
