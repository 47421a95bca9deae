"""Who is signed in, and where they belong."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from strawberry import relay

from accounts.models import Membership, Role
from common.tenancy import operator
from tests.cast import Person
from tests.rows import global_id

UNAUTHENTICATED = {
    "message": "Sign in first: send `Authorization: Bearer <access token>`.",
    "extensions": {"code": "UNAUTHENTICATED"},
}


def test_me_is_who_asks_with_their_role_in_each_organization(alice: Person, bob: Person, charlie: Person) -> None:
    with operator():
        Membership.objects.create(user=bob.user, organization=charlie.organization, role=Role.VIEWER)
    asked = "{ me { id email name emailVerified memberships { role organization { name } } } }"
    assert bob.data(asked)["me"] == {
        "id": global_id(bob.user),
        "email": "bob@example.com",
        "name": "Bob",
        "emailVerified": False,
        "memberships": [
            {"role": "MEMBER", "organization": {"name": "Alice's"}},
            {"role": "VIEWER", "organization": {"name": "Charlie's"}},
        ],
    }
    assert [one["name"] for one in bob.data("{ organizations { name } }")["organizations"]] == ["Charlie's", "Alice's"]


def test_a_member_of_two_organizations_is_seen_in_each_only_as_its_own(
    alice: Person, bob: Person, charlie: Person
) -> None:
    with operator():
        Membership.objects.create(user=bob.user, organization=charlie.organization, role=Role.VIEWER)
    asked = "query ($id: ID!) { organization(id: $id) { members { user { email memberships { organization { name } } } } } }"
    hers = [{"organization": {"name": "Alice's"}}]
    assert alice.data(asked, id=global_id(alice.organization))["organization"]["members"] == [
        {"user": {"email": "alice@example.com", "memberships": hers}},
        {"user": {"email": "bob@example.com", "memberships": hers}},
    ]


@pytest.mark.parametrize(
    "document",
    [
        "{ me { email } }",
        "{ organizations { name } }",
        "{ baseModels { name } }",
        "{ __schema { queryType { name } } }",
        '{ __type(name: "User") { name } }',
        "{ ...all } fragment all on Query { me { email } }",
        "{ nothing }",
    ],
)
def test_nobody_is_told_to_sign_in(anonymous: Callable[..., dict[str, Any]], document: str) -> None:
    assert anonymous(document) == {"data": None, "errors": [UNAUTHENTICATED]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"7",
        b"null",
        b'"me"',
        b"[" * 100_000,
        b'{"query": "{ me { email } }", "variables": {"x": ' + b"9" * 5000 + b"}}",
        b'{"query": 7}',
        b'{"query": "{ me { email } }", "variables": []}',
        b'{"query": "{ me { email } }", "variables": 7}',
        b'{"variables": {}}',
        b'{"query": ""}',
        b'[{"query": "{ me { email } }"}]',  # no batching
    ],
)
def test_a_body_that_is_no_request_is_a_400(db: None, body: bytes) -> None:
    assert Client().post("/graphql", body, content_type="application/json").status_code == 400


@pytest.mark.parametrize(
    "query", ["{ me { emial } }", "{me" * 1500, "query " * 5000, "{", "\x00", "{ node(id: 7) { ix } }"]
)
def test_a_document_that_is_not_valid_is_told_so_without_suggestions(alice: Person, query: str) -> None:
    answer = alice.ask(query)
    assert answer["errors"] and all("Did you mean" not in error["message"] for error in answer["errors"])
    assert "INTERNAL" not in json.dumps(answer)


def test_queries_by_get_are_refused(alice: Person) -> None:
    answer = Client().get("/graphql", {"query": "{ me { email } }"}, headers={"Authorization": f"Bearer {alice.token}"})
    assert answer.status_code in {400, 405}
    assert b"alice@example.com" not in answer.content


def test_a_user_is_a_node_for_oneself_and_for_colleagues(alice: Person, bob: Person, charlie: Person) -> None:
    node = "query ($id: ID!) { node(id: $id) { id ... on User { email memberships { organization { name } } } } }"
    ids = {person.user.email: relay.to_base64("User", person.user.pk) for person in (alice, bob, charlie)}
    seen = {email: alice.data(node, id=key)["node"] for email, key in ids.items()}
    assert [seen[person.user.email] and seen[person.user.email]["email"] for person in (alice, bob, charlie)] == [
        "alice@example.com",
        "bob@example.com",
        None,
    ]
