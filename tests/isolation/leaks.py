"""Leaks, one by one, each with the check that has to find it, and what that says.

Where one layer covers for another, the leak is looked at with the other taken away, or by the layer's own check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.contrib import admin
from strawberry import relay

from accounts import models as accounts
from accounts import permissions
from accounts.models import Membership, Role
from common import graphql, tenancy
from common.errors import Invalid, NotAllowed
from common.events import JobEvent
from common.jobs import JobStatus
from common.tenancy import Principal, TenantQuerySet
from datasets import actions as datasets_actions
from datasets import receive
from datasets.models import Dataset, DatasetVersion
from inference import schema as inference_schema
from platform_site import graphql as views
from platform_site import schema as merged
from tests.isolation import layers, urls
from tests.isolation.absent_ids import absent_thoroughly
from tests.isolation.foreign_ids import check_foreign_ids
from tests.isolation.own_ids import check_own
from tests.isolation.owner import changed_by_the_owner, without_row_level_security
from tests.isolation.places import TYPES, place
from tests.isolation.walk import check_walks
from tests.isolation.world import World
from training import schema as training_schema
from training.models import TrainingRun

Patch = pytest.MonkeyPatch
Check = Callable[[World], None]


@dataclass(frozen=True)
class Leak:
    """`shows` is a pattern of what `check` says of it. `bare`: row level security is off, before and after."""

    what: str
    opened: Callable[[Patch, World], object]
    check: Check
    shows: str
    bare: bool = False
    statements: tuple[str, ...] = ()

    @contextmanager
    def bared(self) -> Iterator[None]:
        with without_row_level_security() if self.bare else ExitStack():
            yield

    @contextmanager
    def open(self, world: World) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch, changed_by_the_owner(*self.statements):
            self.opened(patch, world)
            yield


# ---------------------------------------------------------------------------------------------- checks, narrowed


def foreign(where: str, asker: str = "owner", **how: Any) -> Check:
    return lambda world: check_foreign_ids(world, place(where), asker, **how)


def own(kind: str, name: str, asker: str) -> Check:
    return lambda world: check_own(world, kind, name, asker)


def walk(root: str, hops: int, asker: str = "owner") -> Check:
    return lambda world: check_walks(world, asker, roots=[root], hops=hops)


# ---------------------------------------------------------------------------------------------- leaks, opened


def nothing(patch: Patch, world: World) -> None:
    """The statements are all."""


def replaced(target: Any, name: str, by: Any) -> Callable[[Patch, World], None]:
    return lambda patch, world: patch.setattr(target, name, by)


def in_modules(name: str, by: Any, *modules: str) -> Callable[[Patch, World], None]:
    def open_(patch: Patch, world: World) -> None:
        for module in modules:
            patch.setattr(f"{module}.{name}", by)

    return open_


def both(*opened: Callable[[Patch, World], object]) -> Callable[[Patch, World], None]:
    def open_(patch: Patch, world: World) -> None:
        for each in opened:
            each(patch, world)

    return open_


def all_of_them(rows: Any, principal: Principal) -> Any:
    return rows.all()


def with_any_role(rows: Any, principal: Principal) -> Any:
    return rows.filter(organization_id__in=principal.organizations)


def unasked(*args: Any, **kwargs: Any) -> None:
    """In place of an authorization."""


def of_any_role(actor: Principal, permission: Any, organization_id: UUID) -> None:
    """Whoever is something somewhere is it everywhere."""
    permissions_of = [permissions.ROLES[Role(role)] for role in actor.roles.values()]
    if not any(permission in each for each in permissions_of):
        raise NotAllowed("no")


def whoever_asks(info: Any, global_id: str, model: Any) -> Any:
    """A look-up that forgets who is asking."""
    row = model._default_manager.filter(pk=graphql.model_id(global_id, model)).first()
    if row is None:
        raise graphql.NotFound
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


def resolving(kind: str, field: str, resolver: Callable[..., Any]) -> Callable[[Patch, World], None]:
    return lambda patch, world: patch.setattr(TYPES[kind].fields[field], "resolve", resolver)


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

    job = await views.in_thread(find)
    if job is None:
        raise graphql.NotFound
    yield []


def ticket_for_anybody(info: Any, input: Any) -> str:
    return "a ticket"


@contextmanager
def everybodys(organizations: Any) -> Iterator[None]:
    with tenancy.operator():
        yield


def any_ticket(patch: Patch, world: World) -> None:
    upload = world.theirs.waiting_upload
    patch.setattr(receive, "ids_in", lambda token: (upload.organization_id, upload.pk))


def policy(table: str, change: str) -> tuple[str, ...]:
    return (f"ALTER POLICY tenant ON {table} {change}",)


def without_reference(table: str, column: str) -> tuple[str, ...]:
    return (f"ALTER TABLE {table} DROP CONSTRAINT {table}_{column}_tenant_fk",)


LEAKS = [
    # QuerySets
    Leak(
        "rows of every organization are visible to everybody",
        replaced(TenantQuerySet, "visible_to", all_of_them),
        layers.check_querysets,
        r"TrainingRun.visible_to\(owner\)",
    ),
    Leak(
        "organizations are visible to everybody",
        replaced(accounts.OrganizationQuerySet, "visible_to", all_of_them),
        layers.check_querysets,
        r"Organization.visible_to\(owner\)",
    ),
    Leak(
        "people are visible to everybody, whom row level security does not hold",
        replaced(accounts.UserManager, "visible_to", all_of_them),
        foreign("node(id)", ids=absent_thoroughly),
        r"node\(id\) as owner: 'VXNlcj.*colleague@qztheirs",
    ),
    Leak(
        "API keys are visible to every member",
        replaced(accounts.ApiKeyQuerySet, "visible_to", with_any_role),
        layers.check_querysets,
        r"ApiKey.visible_to\(viewer\)",
    ),
    Leak(
        "the audit log is visible to every member",
        replaced(accounts.AuditQuerySet, "visible_to", with_any_role),
        layers.check_querysets,
        r"AuditEntry.visible_to\(member\)",
    ),
    Leak(
        "whatever is asked, all organizations permit it",
        replaced(accounts, "organizations_that_permit", lambda principal, permission: list(principal.roles)),
        layers.check_querysets,
        r"ApiKey.visible_to\(viewer\)",
    ),
    Leak(
        "lists are of everybody's",
        replaced(TenantQuerySet, "visible_to", all_of_them),
        walk("datasets", hops=0),
        "datasets as owner leads to qztheirs's",
        bare=True,
    ),
    # actions
    *(
        Leak(
            f"{module} does not authorize {name}",
            in_modules("authorize", unasked, module),
            own(kind, name, asker),
            rf"{name} as {asker} should be refused with NOT_ALLOWED",
        )
        for module, kind, name, asker in [
            ("datasets.actions", "mutation", "startUpload", "viewer"),
            ("training.actions", "mutation", "startTrainingRun", "viewer"),
            ("inference.actions", "mutation", "predict", "key of viewer"),
            ("accounts.actions.keys", "mutation", "createApiKey", "member"),
            ("accounts.actions.organizations", "mutation", "inviteMember", "member"),
            ("accounts.organizations_schema", "query", "apiKeys", "viewer"),
            ("accounts.organizations_schema", "query", "auditLog", "member"),
        ]
    ),
    Leak(
        "a role in one organization counts in all",
        replaced(permissions, "authorize", of_any_role),
        layers.check_authorization,
        "UPLOAD at qztheirs's as owner: None",
    ),
    Leak(
        "a key may do what only people may",
        replaced(permissions, "FOR_PEOPLE", frozenset()),
        own("mutation", "createApiKey", "key of owner"),
        "createApiKey as key of owner should be refused",
    ),
    Leak(
        "a mutation neither looks who may see nor authorizes",
        both(replaced(training_schema, "resolve", whoever_asks), in_modules("authorize", unasked, "training.actions")),
        foreign("cancelTrainingRun(id)"),
        r"cancelTrainingRun\(id\) as owner",
        bare=True,
    ),
    Leak(
        "adapters answer whoever asks",
        both(
            replaced(inference_schema, "resolve", whoever_asks), in_modules("authorize", unasked, "inference.actions")
        ),
        foreign("predict(input.adapterId)"),
        "INFERENCE_UNAVAILABLE",
        bare=True,
    ),
    Leak(
        "the same bytes as another's give the other's version",
        replaced(datasets_actions, "_finished", found_by_its_bytes),
        own("mutation", "createDataset", "owner"),
        "createDataset as owner tells of qztheirs",
        bare=True,
    ),
    # ids
    Leak(
        "a look-up forgets who is asking",
        replaced(graphql, "resolve", whoever_asks),
        foreign("dataset(id)", "viewer"),
        r"dataset\(id\) as viewer: .*qztheirs snippets",
        bare=True,
    ),
    Leak(
        "node() forgets who is asking",
        replaced(merged, "resolve_or_null", or_null),
        foreign("node(id)", "key of viewer", ids=absent_thoroughly),
        r"node\(id\) as key of viewer: 'VXNlcj.*colleague@qztheirs",
    ),
    Leak(
        "what is another's is told from what never existed",
        replaced(graphql, "resolve", and_says_whose),
        foreign("trainingRun(id)"),
        "This belongs to another organization",
        bare=True,
    ),
    Leak(
        "an id that is none is told from one that never existed",
        in_modules("model_id", particular, "common.graphql"),
        foreign("upload(id)"),
        "This is no id",
    ),
    Leak(
        "an id of another type is as good",
        in_modules("model_id", of_any_type, "common.graphql"),
        foreign("upload(id)", ids=absent_thoroughly),
        r"upload\(id\) as owner: .*qzours.jsonl",
    ),
    Leak(
        "the number of all rows is told",
        resolving("DatasetConnection", "totalCount", lambda page, info: Dataset.objects.count()),
        foreign("datasets(organizationId)"),
        '"totalCount": 2',
        bare=True,
    ),
    # ways through the schema
    Leak(
        "an organization's members are everybody's",
        resolving("Organization", "members", lambda row, info: list(Membership.objects.all())),
        walk("organization", hops=2),
        "organization.members.user as owner leads to qztheirs's",
        bare=True,
    ),
    Leak(
        "a job's events are all jobs'",
        replaced(JobEvent, "page", page_of_all_jobs),
        walk("datasetVersion", hops=1),
        "datasetVersion.events as owner leads to qztheirs's",
        bare=True,
    ),
    Leak(
        "an adapter's run is any run",
        resolving(
            "Adapter", "trainingRun", lambda row, info: TrainingRun.objects.exclude(pk=row.training_run_id).get()
        ),
        walk("adapter", hops=1),
        "adapter.trainingRun as owner leads to qztheirs's",
        bare=True,
    ),
    # whoever asks
    Leak(
        "a key's role is ignored",
        seen_as(with_keys_as_owners),
        own("mutation", "startTrainingRun", "key of viewer"),
        "startTrainingRun as key of viewer should be refused with NOT_ALLOWED",
    ),
    Leak(
        "roles are remembered after a removal",
        seen_as(as_they_were),
        foreign("organization(id)", "removed"),
        r"organization\(id\) as removed: .*qzours Ltd",
    ),
    Leak(
        "nobody is taken for somebody",
        with_everybody_somebody,
        own("query", "datasets", "anonymous"),
        "datasets as anonymous",
    ),
    # subscriptions
    Leak(
        "a subscription does not look who may see the job",
        replaced(training_schema, "follow", follow_any),
        foreign("trainingRunEvents(id)"),
        r"trainingRunEvents\(id\) as owner",
    ),
    Leak(
        "a stream is generated for whoever asks",
        replaced(inference_schema, "ticket_for", ticket_for_anybody),
        foreign("generate(input.adapterId)"),
        "INFERENCE_UNAVAILABLE",
    ),
    # addresses
    Leak(
        "a ticket for another's upload is taken",
        replaced(receive, "organizations_scope", everybodys),
        urls.check_uploads,
        "a ticket of ours for an upload of theirs as outsider: 400",
    ),
    Leak("any ticket is taken", any_ticket, urls.check_uploads, "a ticket signed for something else as anonymous: 400"),
    Leak(
        "the admin is for everybody who is signed in",
        replaced(admin.site, "has_permission", lambda request: request.user.is_authenticated),
        lambda world: urls.check_admin(world, below="admin/accounts/user/"),
        "/admin/accounts/user/ as a session: ",
    ),
    # row level security
    *(
        Leak(
            f"a policy shows all of {table}",
            nothing,
            layers.check_row_level_security,
            f"{table}: qztheirs's rows are there for qzours",
            statements=policy(table, "USING (true)"),
        )
        for table in ("datasets_dataset", "accounts_membership", "accounts_auditentry")
    ),
    Leak(
        "a policy lets anything be written",
        nothing,
        layers.check_row_level_security,
        "datasets_upload: INSERT by qzours makes rows of qztheirs's",
        statements=policy("datasets_upload", "WITH CHECK (true)"),
    ),
    Leak(
        "a table is not protected",
        nothing,
        layers.check_row_level_security,
        "training_adapter: DELETE by qztheirs reaches 1 of qzours's",
        statements=("ALTER TABLE training_adapter DISABLE ROW LEVEL SECURITY",),
    ),
    *(
        Leak(
            f"{table}.{column} may refer to another's",
            nothing,
            layers.check_references,
            f"{table}.{column} can be made to refer to another's",
            statements=without_reference(table, column),
        )
        for table, column in [("datasets_datasetversion", "upload_id"), ("training_trainingrun", "dataset_version_id")]
    ),
]
