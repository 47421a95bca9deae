"""API keys: a program's access to one organization, in one role."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db.models import F

from accounts.models import ApiKey, AuditEntry, Invitation, Membership
from common.tenancy import operator
from tests.accounts.test_members import CHANGE, INVITE, REMOVE
from tests.cast import Person
from tests.rows import global_id, make_dataset

CREATE = """mutation ($input: CreateApiKeyInput!) { answer: createApiKey(input: $input) {
  __typename ... on IssuedApiKey { secret apiKey { id name prefix role lastUsedAt expiresAt } }
  ... on OperationInfo { messages { kind code field } } } }"""
REVOKE = """mutation ($id: ID!) { answer: revokeApiKey(id: $id) {
  __typename ... on Done { ok } ... on OperationInfo { messages { kind code } } } }"""
KEYS = "query ($id: ID!) { apiKeys(organizationId: $id) { name prefix role } }"
UNAUTHENTICATED = {
    "message": "Sign in first: send `Authorization: Bearer <access token>`.",
    "extensions": {"code": "UNAUTHENTICATED"},
}

pytestmark = pytest.mark.django_db


def create(person: Person, role: str = "MEMBER", **fields: Any) -> dict[str, Any]:
    asked = {"organizationId": global_id(person.organization), "name": "CI", "role": role, **fields}
    return person.data(CREATE, input=asked)["answer"]


def with_key(person: Person, secret: str) -> Person:
    return Person(person.user, person.organization, person.role, secret)


def test_a_key_is_shown_once_and_kept_as_its_hash(alice: Person) -> None:
    issued = create(alice)
    key, secret = issued["apiKey"], issued["secret"]
    assert (
        secret.startswith("ftk_")
        and len(secret) == 47
        and secret.startswith(key["prefix"])
        and len(key["prefix"]) == 12
    )
    with operator():
        row = ApiKey.objects.get()
    assert secret not in str(row.__dict__)
    assert alice.data(KEYS, id=global_id(alice.organization))["apiKeys"] == [
        {"name": "CI", "prefix": key["prefix"], "role": "MEMBER"}
    ]


def test_a_key_opens_its_organization_in_its_role_and_is_nobodys_account(alice: Person, charlie: Person) -> None:
    program = with_key(alice, create(alice, "VIEWER")["secret"])
    dataset, foreign = make_dataset(alice), make_dataset(charlie)
    asked = "query ($id: ID!) { me { email } dataset(id: $id) { name } organizations { name } }"
    assert program.data(asked, id=global_id(dataset)) == {
        "me": None,
        "dataset": {"name": dataset.name},
        "organizations": [{"name": alice.organization.name}],
    }
    assert program.data(asked, id=global_id(foreign))["dataset"] is None
    start = 'mutation { startUpload(input: {fileName: "a", sizeBytes: 1}) { __typename ... on OperationInfo { messages { code } } } }'
    assert program.data(start)["startUpload"]["messages"] == [{"code": "NOT_ALLOWED"}]
    worker = with_key(alice, create(alice, "MEMBER")["secret"])
    assert worker.data(start)["startUpload"]["__typename"] == "UploadTicket"


def test_that_a_key_was_used_is_noted_to_the_minute(alice: Person) -> None:
    program = with_key(alice, create(alice)["secret"])
    program.data("{ organizations { name } }")
    with operator():
        first = ApiKey.objects.get().last_used_at
    program.data("{ organizations { name } }")
    with operator():
        assert ApiKey.objects.get().last_used_at == first
        ApiKey.objects.update(last_used_at=F("last_used_at") - timedelta(seconds=61))
    program.data("{ organizations { name } }")
    with operator():
        assert ApiKey.objects.get().last_used_at > first


def test_a_revoked_key_works_no_more(alice: Person) -> None:
    issued = create(alice)
    program = with_key(alice, issued["secret"])
    assert program.data("{ organizations { name } }")["organizations"]
    for _ in range(2):
        assert alice.data(REVOKE, id=issued["apiKey"]["id"])["answer"] == {"__typename": "Done", "ok": True}
    assert program.ask("{ organizations { name } }")["errors"] == [UNAUTHENTICATED]
    assert alice.data(KEYS, id=global_id(alice.organization))["apiKeys"] == []
    with operator():
        assert [entry.action for entry in AuditEntry.objects.order_by("sequence")] == ["key.create", "key.revoke"]


def test_a_key_ends_when_it_was_to_end(alice: Person) -> None:
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    program = with_key(alice, create(alice, expiresAt=ends)["secret"])
    assert program.data("{ organizations { name } }")["organizations"]
    with operator():
        ApiKey.objects.update(expires_at=F("expires_at") - timedelta(hours=1, seconds=1))
    assert program.ask("{ organizations { name } }")["errors"] == [UNAUTHENTICATED]


def test_a_key_may_last_as_long_as_the_calendar(alice: Person) -> None:
    create(alice, expiresAt="9999-12-31T22:59:59-01:00")
    listed = alice.data(
        "query ($id: ID!) { apiKeys(organizationId: $id) { expiresAt } }", id=global_id(alice.organization)
    )
    assert listed["apiKeys"] == [{"expiresAt": "9999-12-31T23:59:59+00:00"}]


@pytest.mark.parametrize("secret", ["ftk_", "ftk_" + "A" * 43, "ftk_\u0000", "ftk_é"])
def test_what_is_no_key_is_refused_alike(alice: Person, secret: str) -> None:
    assert with_key(alice, secret.encode().decode("latin1")).ask("{ organizations { name } }")["errors"] == [
        UNAUTHENTICATED
    ]


@pytest.mark.parametrize(
    ("fields", "code", "field"),
    [
        ({"name": " "}, "INVALID", "name"),
        ({"name": "x" * 151}, "INVALID", "name"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "INVALID", "expiresAt"),
        ({"expiresAt": "2099-01-01T00:00:00"}, "INVALID", "expiresAt"),  # where?
        ({"expiresAt": "9999-12-31T23:59:59-14:00"}, "INVALID", "expiresAt"),  # in UTC the year 10000
        ({"expiresAt": "0001-01-01T00:00:00+14:00"}, "INVALID", "expiresAt"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(alice: Person, fields: dict[str, Any], code: str, field: str) -> None:
    answer = create(alice, **fields)
    assert answer["messages"] == [{"kind": "VALIDATION", "code": code, "field": field}]
    with operator():
        assert not ApiKey.objects.exists()


def test_keys_are_for_those_who_manage_them(alice: Person, bob: Person, vera: Person, charlie: Person) -> None:
    issued = create(alice)
    for person in (bob, vera):
        assert create(person)["messages"][0]["code"] == "NOT_ALLOWED"
        asked = person.ask(KEYS, id=global_id(alice.organization))
        assert [error["extensions"]["code"] for error in asked["errors"]] == ["NOT_ALLOWED"]
        node = person.data("query ($id: ID!) { node(id: $id) { id } }", id=issued["apiKey"]["id"])
        assert node == {"node": None}, "nor by its id"
        assert person.data(REVOKE, id=issued["apiKey"]["id"])["answer"]["messages"][0]["code"] == "NOT_FOUND"
    assert charlie.data(REVOKE, id=issued["apiKey"]["id"])["answer"]["messages"][0]["code"] == "NOT_FOUND"
    with operator():
        assert ApiKey.objects.get().revoked_at is None


@pytest.mark.parametrize("role", ["ADMIN", "OWNER"])
def test_no_key_lets_anybody_in(alice: Person, bob: Person, role: str) -> None:
    """It would outlast whoever made it."""
    program = with_key(alice, create(alice, role)["secret"])
    organization = global_id(alice.organization)
    refused = [{"kind": "PERMISSION", "code": "NOT_ALLOWED", "field": None}]
    assert create(program, "VIEWER")["messages"] == refused
    for document, asked in (
        (INVITE, {"email": "x@example.com"}),
        (CHANGE, {"userId": global_id(bob.user), "role": "ADMIN"}),
        (REMOVE, {"userId": global_id(bob.user)}),
    ):
        answer = program.data(document, input={"organizationId": organization, **asked})["answer"]
        assert answer["messages"] == refused
    with operator():
        assert ApiKey.objects.count() == 1 and not Invitation.objects.exists()
        assert Membership.objects.get(user=bob.user).role == "MEMBER"


@pytest.mark.parametrize(("change", "works"), [("remove", False), ("VIEWER", False), ("ADMIN", True)])
def test_keys_that_somebody_made_may_do_no_more_than_they(alice: Person, bob: Person, change: str, works: bool) -> None:
    organization, him = global_id(alice.organization), global_id(bob.user)
    alice.data(CHANGE, input={"organizationId": organization, "userId": him, "role": "ADMIN"})
    program = with_key(bob, create(bob, "MEMBER")["secret"])
    if change == "remove":
        alice.data(REMOVE, input={"organizationId": organization, "userId": him})
    else:
        alice.data(CHANGE, input={"organizationId": organization, "userId": him, "role": change})
    answer = program.ask("{ organizations { name } }")
    assert ("errors" not in answer) is works


def test_an_admin_revokes_no_key_of_an_owner(alice: Person, bob: Person) -> None:
    issued = create(alice, "OWNER")
    asked = {"organizationId": global_id(alice.organization), "userId": global_id(bob.user), "role": "ADMIN"}
    alice.data(CHANGE, input=asked)
    assert bob.data(REVOKE, id=issued["apiKey"]["id"])["answer"]["messages"][0]["code"] == "NOT_ALLOWED"
    assert "errors" not in with_key(alice, issued["secret"]).ask("{ organizations { name } }")
