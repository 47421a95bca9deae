"""One's own account, as operations of the API."""

from __future__ import annotations

from typing import Annotated

import strawberry
import strawberry_django
from strawberry import argument

from accounts.actions import deletion, identity, passwords
from accounts.models import Organization, User
from accounts.principals import principal_of
from accounts.tokens import IssuedSession
from accounts.types import Done, OrganizationType, SessionType, UserType
from common.graphql import NOBODY, Info, OperationInfo, mutation, resolve_or_null

SignupPayload = Annotated[
    SessionType | Done | OperationInfo,
    strawberry.union(
        "SignupPayload",
        description="EMAIL_TAKEN for a known address; where verification is required, Done for both, and a mail.",
    ),
]
LoginPayload = Annotated[
    SessionType | OperationInfo,
    strawberry.union("LoginPayload", description="A session, or why not: WRONG_CREDENTIALS, EMAIL_NOT_VERIFIED."),
]
RefreshTokenPayload = Annotated[
    SessionType | OperationInfo, strawberry.union("RefreshTokenPayload", description="A session, or why not.")
]
LogoutPayload = Annotated[
    Done | OperationInfo, strawberry.union("LogoutPayload", description="Done, for an unknown token, too.")
]
VerifyEmailPayload = Annotated[
    Done | OperationInfo, strawberry.union("VerifyEmailPayload", description="Done, or INVALID_TOKEN.")
]
ChangePasswordPayload = Annotated[
    Done | OperationInfo,
    strawberry.union("ChangePasswordPayload", description="Done, or why not: WRONG_CREDENTIALS, WEAK_PASSWORD."),
]
RequestPasswordResetPayload = Annotated[
    Done | OperationInfo,
    strawberry.union("RequestPasswordResetPayload", description="Done, whether or not there is such an account."),
]
ResetPasswordPayload = Annotated[
    Done | OperationInfo,
    strawberry.union("ResetPasswordPayload", description="Done, or why not: INVALID_TOKEN, WEAK_PASSWORD."),
]
DeleteAccountPayload = Annotated[
    Done | OperationInfo,
    strawberry.union("DeleteAccountPayload", description="Done, or why not: WRONG_CREDENTIALS, LAST_OWNER."),
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


@strawberry.input(description="A token that was mailed.")
class VerifyEmailInput:
    token: str = strawberry.field(description="The one in the mail; it works once, within an hour.")


@strawberry.input(description="Another password.")
class ChangePasswordInput:
    current_password: str = strawberry.field(description="The present one.")
    new_password: str = strawberry.field(description="At least ten characters, and none that everybody guesses.")


@strawberry.input(description="Whose password is lost.")
class RequestPasswordResetInput:
    email: str = strawberry.field(description="The address of the account.")


@strawberry.input(description="Another password, with a token that was mailed.")
class ResetPasswordInput:
    token: str = strawberry.field(description="The one in the mail; it works once, within an hour.")
    new_password: str = strawberry.field(description="At least ten characters, and none that everybody guesses.")


@strawberry.input(description="Your account, to be deleted.")
class DeleteAccountInput:
    password: str = strawberry.field(description="Your password, once more.")


def signed_in(info: Info, session: IssuedSession) -> SessionType:
    """What else is asked of the session is answered as to its user."""
    info.context.principal = principal_of(session.access_token)
    return SessionType.of(session)


@strawberry.type
class IdentityQuery:
    @strawberry_django.field(description="Who is signed in; null for an API key.")
    def me(self, info: Info) -> UserType | None:
        return User.objects.filter(pk=info.context.actor.user_id).first()  # type: ignore[return-value, misc]

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
        session = identity.sign_up(
            email=input.email,
            password=input.password,
            name=input.name or "",
            organization_name=input.organization_name,
        )
        return signed_in(info, session) if session else Done()

    @mutation("Show with a token from a mail that your address is yours.", waits=True)
    def verify_email(
        self, info: Info, input: Annotated[VerifyEmailInput, argument(description="The token.")]
    ) -> VerifyEmailPayload:
        identity.verify_email(token=input.token)
        return Done()

    @mutation("Sign in.", waits=True)
    def login(self, info: Info, input: Annotated[LoginInput, argument(description="Who.")]) -> LoginPayload:
        return signed_in(info, identity.log_in(email=input.email, password=input.password))

    @mutation("Exchange a refresh token for a new session.", waits=True)
    def refresh_token(
        self, info: Info, input: Annotated[RefreshTokenInput, argument(description="The present session.")]
    ) -> RefreshTokenPayload:
        return signed_in(info, identity.refresh(refresh_token=input.refresh_token))

    @mutation("End a session: its refresh tokens, and its access tokens at once.", waits=True)
    def logout(
        self, info: Info, input: Annotated[RefreshTokenInput, argument(description="Any refresh token of it.")]
    ) -> LogoutPayload:
        identity.log_out(refresh_token=input.refresh_token)
        return Done()

    @mutation("Set another password, which ends all your other sessions.", waits=True)
    def change_password(
        self, info: Info, input: Annotated[ChangePasswordInput, argument(description="The old one and the new one.")]
    ) -> ChangePasswordPayload:
        passwords.change_password(
            actor=info.context.actor, current_password=input.current_password, new_password=input.new_password
        )
        return Done()

    @mutation("Have a token mailed to an address, to set another password with.", waits=True)
    def request_password_reset(
        self, info: Info, input: Annotated[RequestPasswordResetInput, argument(description="Whose.")]
    ) -> RequestPasswordResetPayload:
        passwords.request_password_reset(email=input.email)
        return Done()

    @mutation("Set another password with a token from a mail, which ends all your sessions.", waits=True)
    def reset_password(
        self, info: Info, input: Annotated[ResetPasswordInput, argument(description="The token and the new one.")]
    ) -> ResetPasswordPayload:
        passwords.reset_password(token=input.token, new_password=input.new_password)
        return Done()

    @mutation(
        "Have your account deleted once the grace period is over, and with it the organizations that nobody else belongs "
        "to. It signs you out everywhere; whoever logs in before has all of it restored.",
        waits=True,
    )
    def delete_account(
        self, info: Info, input: Annotated[DeleteAccountInput, argument(description="Whether it is you.")]
    ) -> DeleteAccountPayload:
        deletion.delete_account(actor=info.context.actor, password=input.password)
        info.context.principal = NOBODY
        return Done()
