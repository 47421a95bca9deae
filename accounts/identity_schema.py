"""One's own account, as operations of the API."""

from __future__ import annotations

from typing import Annotated

import strawberry
import strawberry_django
from strawberry import argument

from accounts.actions import identity
from accounts.models import Organization, User
from accounts.principals import principal_of
from accounts.tokens import IssuedSession
from accounts.types import OrganizationType, SessionType, UserType
from common.graphql import Info, OperationInfo, mutation, resolve_or_null

SignupPayload = Annotated[
    SessionType | OperationInfo, strawberry.union("SignupPayload", description="EMAIL_TAKEN for a known address.")
]
LoginPayload = Annotated[
    SessionType | OperationInfo, strawberry.union("LoginPayload", description="A session, or why not.")
]
RefreshTokenPayload = Annotated[
    SessionType | OperationInfo, strawberry.union("RefreshTokenPayload", description="A session, or why not.")
]


@strawberry.input(description="A new account.")
class SignupInput:
    email: str = strawberry.field(description="The address to log in with.")
    password: str = strawberry.field(description="At least ten characters, and none that everybody guesses.")
    name: str | None = strawberry.field(default="", description="What you want to be called.")
    organization_name: str | None = strawberry.field(
        default=None, description="The name of your organization; by default it bears yours."
    )


@strawberry.input(description="Who wants to sign in.")
class LoginInput:
    email: str = strawberry.field(description="The address of the account.")
    password: str = strawberry.field(description="Its password.")


@strawberry.input(description="A session to go on with.")
class RefreshTokenInput:
    refresh_token: str = strawberry.field(description="The last refresh token that was given out; each works once.")


def signed_in(info: Info, session: IssuedSession) -> SessionType:
    """What else is asked of the session is answered as to its user."""
    info.context.principal = principal_of(session.access_token)
    return SessionType.of(session)


@strawberry.type
class IdentityQuery:
    @strawberry_django.field(description="Who is signed in.")
    def me(self, info: Info) -> UserType | None:
        return User.objects.filter(pk=info.context.signed_in).first()  # type: ignore[return-value]

    @strawberry_django.field(description="One of your organizations.")
    def organization(
        self, info: Info, id: Annotated[strawberry.ID, argument(description="Its id.")]
    ) -> OrganizationType | None:
        return resolve_or_null(info, id, Organization)  # type: ignore[return-value]

    @strawberry_django.field(description="The organizations that you belong to.")
    def organizations(self, info: Info) -> list[OrganizationType]:
        return Organization.objects.visible_to(info.context.actor)  # type: ignore[return-value]


@strawberry.type
class IdentityMutation:
    @mutation("Make an account, with an organization of its own.", waits=True)
    def signup(self, info: Info, input: Annotated[SignupInput, argument(description="The account.")]) -> SignupPayload:
        return signed_in(
            info,
            identity.sign_up(
                email=input.email,
                password=input.password,
                name=input.name or "",
                organization_name=input.organization_name,
            ),
        )

    @mutation("Sign in.", waits=True)
    def login(self, info: Info, input: Annotated[LoginInput, argument(description="Who.")]) -> LoginPayload:
        return signed_in(info, identity.log_in(email=input.email, password=input.password))

    @mutation("Exchange a refresh token for a new session.", waits=True)
    def refresh_token(
        self, info: Info, input: Annotated[RefreshTokenInput, argument(description="The present session.")]
    ) -> RefreshTokenPayload:
        return signed_in(info, identity.refresh(refresh_token=input.refresh_token))
