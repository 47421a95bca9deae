"""Accounts on the wire."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

import strawberry
import strawberry_django
from strawberry.scalars import JSON

from accounts import models
from accounts.models import OrganizationStatus, Role
from accounts.quotas import LIMITS, quota_known_of
from accounts.tokens import IssuedSession
from accounts.usage import usage_of, usage_sums
from common.graphql import BigInt, Info, ModelNode

strawberry.enum(Role, description="What somebody is in an organization.")
strawberry.enum(
    OrganizationStatus,
    description="CLOSING: about to be deleted. It may be looked at, and nothing in it changes or begins any more.",
)


@strawberry_django.type(models.User, name="User", description="A person with an account.")
class UserType(ModelNode):
    email: str = strawberry_django.field(description="The address that they log in with.")
    name: str = strawberry_django.field(description="What they want to be called.")
    email_verified: bool = strawberry_django.field(description="Whether they have shown that the address is theirs.")
    created_at: strawberry.auto = strawberry_django.field(description="When they signed up.")
    memberships: list[MembershipType] = strawberry_django.field(
        description="Their organizations, and their role in each."
    )


@strawberry_django.type(
    models.Organization,
    name="Organization",
    description="A tenant. Everything else belongs to exactly one; signing up creates a personal one.",
)
class OrganizationType(ModelNode):
    name: str = strawberry_django.field(description="Its name, for people.")
    slug: str = strawberry_django.field(description="Its name, for addresses.")
    created_at: strawberry.auto = strawberry_django.field(description="When it was made.")
    members: list[MembershipType] = strawberry_django.field(field_name="memberships", description="Who belongs to it.")
    closes_at: datetime | None = strawberry_django.field(
        description="When it is deleted, unless it is restored before."
    )
    invitations: list[InvitationType] = strawberry_django.field(
        description="Those that nobody has accepted yet; empty for whoever may not invite."
    )

    @strawberry_django.field(description="Whether it is about to be deleted.", only=["closes_at"])
    def status(self) -> OrganizationStatus:
        return self.status  # type: ignore[return-value]

    @strawberry_django.field(
        description="What it may use.", select_related=["quota"], only=[f"quota__{limit}" for limit in LIMITS]
    )
    def quota(self) -> Quota:
        return Quota(**asdict(quota_known_of(self)))  # type: ignore[arg-type]

    @strawberry_django.field(
        description="What it uses, as it counts towards the quota.", annotate={"usage_sums": usage_sums()}
    )
    def usage(self) -> Usage:
        return Usage(**asdict(usage_of(self)))  # type: ignore[arg-type]


@strawberry.type(description="What an organization may use.")
class Quota:
    storage_bytes: BigInt = strawberry.field(description="Uploads, dataset versions, and adapters together.")
    concurrent_runs: int = strawberry.field(description="Training runs that are queued or running.")
    training_minutes_per_month: int = strawberry.field(description="Of runs that ended in a calendar month (UTC).")
    tokens_per_day: BigInt = strawberry.field(description="Of prompts and answers, a day (UTC).")
    requests_per_minute: int = strawberry.field(description="Of each user, and of the API keys together.")


@strawberry.type(description="What an organization uses.")
class Usage:
    storage_bytes: BigInt = strawberry.field(description="With those announced for uploads that can still arrive.")
    running_runs: int = strawberry.field(description="Training runs that are queued or running.")
    training_minutes_this_month: int = strawberry.field(description="Whole minutes of runs that have ended.")
    tokens_today: BigInt = strawberry.field(description="With those reserved for predictions under way.")


@strawberry_django.type(models.Membership, name="Membership", description="What a user is in an organization.")
class MembershipType:
    user: UserType = strawberry_django.field(description="The member.")
    organization: OrganizationType = strawberry_django.field(description="The organization.")
    role: Role = strawberry_django.field(description="The member's role.")


@strawberry_django.type(models.Invitation, name="Invitation", description="An address that is asked to join.")
class InvitationType(ModelNode):
    email: str = strawberry_django.field(description="Where the token was sent.")
    role: Role = strawberry_django.field(description="What whoever accepts it will be.")
    created_at: strawberry.auto = strawberry_django.field(description="When it was sent.")
    expires_at: datetime = strawberry_django.field(description="Until when it can be accepted.")
    invited_by: UserType | None = strawberry_django.field(description="Who sent it.")

    @classmethod
    def get_queryset(cls, queryset: Any, info: Info, **_: Any) -> Any:
        # the optimizer brings the plain QuerySet of a prefetch
        return queryset.filter(pk__in=models.Invitation.objects.visible_to(info.context.actor).values("pk"))


@strawberry.type(
    name="Session",
    description="Tokens of a signed-in user. The access token lives minutes; the refresh token rotates at each use.",
)
class SessionType:
    access_token: str = strawberry.field(description="Send it as `Authorization: Bearer ...`.")
    refresh_token: str = strawberry.field(description="Exchange it for a new session before it expires; usable once.")
    expires_at: datetime = strawberry.field(description="When the access token expires.")
    user: UserType = strawberry.field(description="Who is signed in.")

    @classmethod
    def of(cls, issued: IssuedSession) -> SessionType:
        return cls(
            access_token=issued.access_token,
            refresh_token=issued.refresh_token,
            expires_at=issued.expires_at,
            user=cast(UserType, issued.user),
        )


@strawberry.type(description="It was done.")
class Done:
    ok: bool = strawberry.field(default=True, description="Always true.")


@strawberry_django.type(models.ApiKey, name="ApiKey", description="A program's access to an organization.")
class ApiKeyType(ModelNode):
    organization: OrganizationType = strawberry_django.field(description="The organization that it opens.")
    name: str = strawberry_django.field(description="What it is for.")
    prefix: str = strawberry_django.field(description="How the key begins, to know it by.")
    role: Role = strawberry_django.field(description="What a program that has it may do.")
    last_used_at: datetime | None = strawberry_django.field(description="When it was last used, to the minute.")
    expires_at: datetime | None = strawberry_django.field(description="Until when it works.")
    created_at: strawberry.auto = strawberry_django.field(description="When it was made.")


@strawberry.type(description="The only time that the whole key is shown.")
class IssuedApiKey:
    api_key: ApiKeyType = strawberry.field(description="The key, as it is known from now on.")
    secret: str = strawberry.field(description="Send it as `Authorization: Bearer ...`, and keep it safe.")


@strawberry_django.type(models.AuditEntry, name="AuditEntry", description="Something that was done, and by whom.")
class AuditEntryType(ModelNode):
    at: datetime = strawberry_django.field(description="When.")
    actor: str = strawberry_django.field(description="Who: user:<id> or key:<id>.")
    action: str = strawberry_django.field(description="What, such as member.invite.")
    target: str = strawberry_django.field(description="To whom or what.")
    details: JSON = strawberry_django.field(description="More of it; ids and words.")
