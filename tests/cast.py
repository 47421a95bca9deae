"""Alice owns, Bob is a member, Vera looks, Charlie is an outsider: people with accounts, and a voice at the API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from django.db import connection
from django.test import Client

from accounts.models import Membership, Organization, Role, User
from accounts.tokens import IssuedSession, issue_session
from common.tenancy import Principal, operator

PASSWORD = "a long enough password"


@dataclass
class Person:
    """Somebody with an account: their rows, who they are to actions, and their voice at the API."""

    user: User
    organization: Organization
    role: Role
    token: str
    client: Client = field(default_factory=Client)

    @property
    def principal(self) -> Principal:
        return Principal(user_id=self.user.pk, roles={self.organization.pk: self.role.value})

    def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """POST a GraphQL operation; return the whole answer."""
        response = self.client.post(
            "/graphql",
            json.dumps({"query": document, "variables": variables}),
            content_type="application/json",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        return response.json()

    def data(self, document: str, **variables: Any) -> dict[str, Any]:
        """`ask`, for an operation that has no errors."""
        answer = self.ask(document, **variables)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]


def make_person(name: str, organization: Organization | None = None, role: Role = Role.OWNER) -> Person:
    with operator():
        user = User.objects.create_user(f"{name.lower()}@example.com", PASSWORD, name=name)
        if organization is None:
            organization = Organization.objects.create(name=f"{name}'s", slug=f"{name.lower()}-s")
        Membership.objects.create(organization=organization, user=user, role=role)
        token = issue_session(user).access_token
    return Person(user, organization, role, token)


def session_of(user: User) -> IssuedSession:
    """A session more, as a log-in makes one."""
    with operator():
        return issue_session(user)


def current_role() -> tuple[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_user, current_database()")
        return cursor.fetchone()
