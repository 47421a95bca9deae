"""Organizations, their people, their keys, and their audit log, as operations of the API."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated

import strawberry
import strawberry_django
from strawberry import ID, argument

from accounts.actions import deletion, keys, organizations
from accounts.models import ApiKey, AuditEntry, Invitation, Organization, Role, User
from accounts.permissions import Permission, authorize_look
from accounts.principals import with_roles_as_they_are
from accounts.types import ApiKeyType, AuditEntryType, Done, IssuedApiKey, MembershipType, OrganizationType
from common.graphql import Info, KeysetConnection, OperationInfo, model_id, mutation, resolve, resolve_or_null

InviteMemberPayload = Annotated[
    Done | OperationInfo, strawberry.union("InviteMemberPayload", description="Done, or why not.")
]
AcceptInvitationPayload = Annotated[
    MembershipType | OperationInfo,
    strawberry.union("AcceptInvitationPayload", description="What you are from now on, or why not."),
]
ChangeMemberRolePayload = Annotated[
    MembershipType | OperationInfo,
    strawberry.union("ChangeMemberRolePayload", description="What they are from now on, or why not."),
]
RemoveMemberPayload = Annotated[
    Done | OperationInfo, strawberry.union("RemoveMemberPayload", description="Done, or why not.")
]
CreateApiKeyPayload = Annotated[
    IssuedApiKey | OperationInfo, strawberry.union("CreateApiKeyPayload", description="The key, or why not.")
]
RevokeApiKeyPayload = Annotated[
    Done | OperationInfo, strawberry.union("RevokeApiKeyPayload", description="Done, or why not.")
]
WithdrawInvitationPayload = Annotated[
    Done | OperationInfo, strawberry.union("WithdrawInvitationPayload", description="Done, or why not.")
]
DeleteOrganizationPayload = Annotated[
    OrganizationType | OperationInfo,
    strawberry.union("DeleteOrganizationPayload", description="The organization, which is CLOSING, or why not."),
]
RestoreOrganizationPayload = Annotated[
    OrganizationType | OperationInfo,
    strawberry.union("RestoreOrganizationPayload", description="The organization, or why not."),
]
Input = argument(description="What is asked for.")


@strawberry.input(description="Somebody who is asked to join.")
class InviteMemberInput:
    organization_id: ID = strawberry.field(description="The organization.")
    email: str = strawberry.field(description="Where the invitation is sent.")
    role: Role = strawberry.field(default=Role.MEMBER, description="What they will be.")


@strawberry.input(description="An invitation that is taken up.")
class AcceptInvitationInput:
    token: str = strawberry.field(description="The token in the mail; it works once.")


@strawberry.input(description="What a member is from now on.")
class ChangeMemberRoleInput:
    organization_id: ID = strawberry.field(description="The organization.")
    user_id: ID = strawberry.field(description="The member.")
    role: Role = strawberry.field(description="Their new role.")


@strawberry.input(description="A member who goes; your own id: you leave.")
class RemoveMemberInput:
    organization_id: ID = strawberry.field(description="The organization.")
    user_id: ID = strawberry.field(description="The member.")


@strawberry.input(description="A key for a program.")
class CreateApiKeyInput:
    organization_id: ID = strawberry.field(description="The organization that it opens.")
    name: str = strawberry.field(description="What it is for.")
    role: Role = strawberry.field(default=Role.MEMBER, description="What the program may do there.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="Until when; without it, until it is revoked."
    )


@strawberry.input(description="An organization that is to be deleted.")
class DeleteOrganizationInput:
    organization_id: ID = strawberry.field(description="The organization.")
    password: str = strawberry.field(description="Your password, once more.")


@strawberry.input(description="An organization that is not to be deleted after all.")
class RestoreOrganizationInput:
    organization_id: ID = strawberry.field(description="The organization.")


@strawberry.type
class OrganizationsQuery:
    @strawberry_django.field(description="The keys of an organization that work, for those who manage them.")
    def api_keys(
        self, info: Info, organization_id: Annotated[ID, argument(description="The organization.")]
    ) -> list[ApiKeyType]:
        organization = resolve_or_null(info, organization_id, Organization)
        if organization is None:
            return []
        authorize_look(info.context.actor, Permission.MANAGE_KEYS, organization.pk)
        return ApiKey.objects.filter(organization=organization).working()  # type: ignore[return-value]

    @strawberry_django.connection(
        KeysetConnection[AuditEntryType], description="What was done in an organization, for those who may read it."
    )
    def audit_log(
        self, info: Info, organization_id: Annotated[ID, argument(description="The organization.")]
    ) -> list[AuditEntryType]:
        organization = resolve_or_null(info, organization_id, Organization)
        if organization is None:
            return AuditEntry.objects.none()  # type: ignore[return-value]
        authorize_look(info.context.actor, Permission.READ_AUDIT_LOG, organization.pk)
        return AuditEntry.objects.filter(organization_id=organization.pk).order_by("-sequence")  # type: ignore[return-value]


@strawberry.type
class OrganizationsMutation:
    @mutation("Ask somebody to join, by mail.")
    def invite_member(self, info: Info, input: Annotated[InviteMemberInput, Input]) -> InviteMemberPayload:
        organizations.invite_member(
            actor=info.context.actor,
            organization=resolve(info, input.organization_id, Organization),
            email=input.email,
            role=input.role,
        )
        return Done()

    @mutation("Take back an invitation that nobody has accepted yet.")
    def withdraw_invitation(
        self, info: Info, id: Annotated[ID, argument(description="Its id.")]
    ) -> WithdrawInvitationPayload:
        organizations.withdraw_invitation(actor=info.context.actor, invitation=resolve(info, id, Invitation))
        return Done()

    @mutation("Join the organization that a token invites to.", waits=True)
    def accept_invitation(self, info: Info, input: Annotated[AcceptInvitationInput, Input]) -> AcceptInvitationPayload:
        membership = organizations.accept_invitation(actor=info.context.actor, token=input.token)
        info.context.principal = with_roles_as_they_are(info.context.principal)
        return membership  # type: ignore[return-value]

    @mutation("Change what a member is.")
    def change_member_role(self, info: Info, input: Annotated[ChangeMemberRoleInput, Input]) -> ChangeMemberRolePayload:
        return organizations.change_member_role(  # type: ignore[return-value]
            actor=info.context.actor,
            organization=resolve(info, input.organization_id, Organization),
            user_id=model_id(input.user_id, User),
            role=input.role,
        )

    @mutation("Remove a member, or leave.")
    def remove_member(self, info: Info, input: Annotated[RemoveMemberInput, Input]) -> RemoveMemberPayload:
        organizations.remove_member(
            actor=info.context.actor,
            organization=resolve(info, input.organization_id, Organization),
            user_id=model_id(input.user_id, User),
        )
        return Done()

    @mutation("Make a key for a program. It is shown now, and never again.")
    def create_api_key(self, info: Info, input: Annotated[CreateApiKeyInput, Input]) -> CreateApiKeyPayload:
        issued = keys.create_key(
            actor=info.context.actor,
            organization=resolve(info, input.organization_id, Organization),
            name=input.name,
            role=input.role,
            expires_at=input.expires_at,
        )
        return IssuedApiKey(api_key=issued.key, secret=issued.secret)  # type: ignore[arg-type]

    @mutation("Have a key work no more, from this moment on.")
    def revoke_api_key(self, info: Info, id: Annotated[ID, argument(description="Its id.")]) -> RevokeApiKeyPayload:
        keys.revoke_key(actor=info.context.actor, key=resolve(info, id, ApiKey))
        return Done()

    @mutation("Have an organization deleted, with all that belongs to it, once the grace period is over.")
    def delete_organization(
        self, info: Info, input: Annotated[DeleteOrganizationInput, Input]
    ) -> DeleteOrganizationPayload:
        principal = info.context.actor
        organization = deletion.delete_organization(
            actor=principal,
            organization=resolve(info, input.organization_id, Organization),
            password=input.password,
        )
        info.context.principal = replace(principal, closing=principal.closing | {organization.pk})
        return organization  # type: ignore[return-value]

    @mutation("Leave an organization as it is that was to be deleted, before the grace period is over.")
    def restore_organization(
        self, info: Info, input: Annotated[RestoreOrganizationInput, Input]
    ) -> RestoreOrganizationPayload:
        principal = info.context.actor
        organization = deletion.restore_organization(
            actor=principal, organization=resolve(info, input.organization_id, Organization)
        )
        info.context.principal = replace(principal, closing=principal.closing - {organization.pk})
        return organization  # type: ignore[return-value]
