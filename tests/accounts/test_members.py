"""Who belongs to an organization, and as what: invitations, roles, removal, and the last owner."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.db.models import F

from accounts import audit
from accounts.actions import keys, organizations
from accounts.models import ApiKey, AuditEntry, Invitation, Membership
from accounts.permissions import table
from accounts.roles import Role
from accounts.schedules import remove_expired_invitations
from common.errors import Invalid, NotAllowed
from common.models import OutboxMessage
from common.tenancy import operator, tenant
from tests.accounts.locks import in_another_thread
from tests.cast import PASSWORD, Person, make_person
from tests.rows import global_id

INVITE = """mutation ($input: InviteMemberInput!) { answer: inviteMember(input: $input) {
  __typename ... on Done { ok } ... on OperationInfo { messages { kind code field } } } }"""
ACCEPT = """mutation ($input: AcceptInvitationInput!) { answer: acceptInvitation(input: $input) {
  __typename ... on Membership { role organization { name } } ... on OperationInfo { messages { kind code field } } } }"""
CHANGE = """mutation ($input: ChangeMemberRoleInput!) { answer: changeMemberRole(input: $input) {
  __typename ... on Membership { role user { name } } ... on OperationInfo { messages { kind code field } } } }"""
REMOVE = """mutation ($input: RemoveMemberInput!) { answer: removeMember(input: $input) {
  __typename ... on Done { ok } ... on OperationInfo { messages { kind code field } } } }"""
DONE = {"__typename": "Done", "ok": True}


def refusal(code: str, kind: str = "VALIDATION", field: str | None = None) -> dict[str, Any]:
    return {"__typename": "OperationInfo", "messages": [{"kind": kind, "code": code, "field": field}]}


def ask(person: Person, document: str, **input: Any) -> dict[str, Any]:
    return person.data(document, input=input)["answer"]


def roles(person: Person) -> dict[str, str]:
    """What everybody is in the person's organization."""
    with operator():
        members = Membership.objects.filter(organization=person.organization)
        return dict(members.values_list("user__name", "role"))


def invite(person: Person, email: str, role: str = "MEMBER") -> dict[str, Any]:
    return ask(person, INVITE, organizationId=global_id(person.organization), email=email, role=role)


def token_sent_to(email: str) -> str:
    with operator():
        mail = OutboxMessage.objects.filter(recipient=email).latest("created_at")
    found = re.search(r"^    ([\w-]{43})$", mail.body, re.MULTILINE)
    assert found, mail.body
    return found[1]


@pytest.mark.django_db
def test_who_is_invited_joins_in_the_role_that_was_offered(alice: Person, charlie: Person) -> None:
    assert invite(alice, " Charlie@Example.com ", "VIEWER") == DONE
    joined = ask(charlie, ACCEPT, token=token_sent_to("charlie@example.com"))
    assert joined == {
        "__typename": "Membership",
        "role": "VIEWER",
        "organization": {"name": alice.organization.name},
    }
    assert roles(alice)["Charlie"] == "VIEWER"
    with operator():
        log = list(AuditEntry.objects.filter(organization_id=alice.organization.pk).order_by("sequence"))
    assert [(entry.action, entry.actor) for entry in log] == [
        ("member.invite", f"user:{alice.user.pk}"),
        ("member.join", f"user:{charlie.user.pk}"),
    ]
    assert "charlie@example.com" not in str([entry.__dict__ for entry in log])


@pytest.mark.django_db
def test_an_invitation_works_once_and_only_the_last_one(alice: Person, charlie: Person) -> None:
    invite(alice, "charlie@example.com")
    first = token_sent_to("charlie@example.com")
    invite(alice, "charlie@example.com")
    second = token_sent_to("charlie@example.com")
    not_valid = refusal("INVALID_TOKEN", field="token")
    assert ask(charlie, ACCEPT, token=first) == not_valid
    assert ask(charlie, ACCEPT, token=second)["__typename"] == "Membership"
    assert ask(charlie, ACCEPT, token=second) == not_valid
    assert ask(charlie, ACCEPT, token="nonsense\u0000") == not_valid


@pytest.mark.django_db
def test_an_invitation_ends_after_a_week(alice: Person, charlie: Person) -> None:
    invite(alice, "charlie@example.com")
    with operator():
        Invitation.objects.update(expires_at=F("expires_at") - timedelta(days=7, seconds=1))
    token = token_sent_to("charlie@example.com")
    assert ask(charlie, ACCEPT, token=token) == refusal("INVALID_TOKEN", field="token")
    assert "Charlie" not in roles(alice)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("email", "role", "answer"),
    [
        ("nobody", "MEMBER", refusal("INVALID_EMAIL", field="email")),
        ("a\u0000@example.com", "MEMBER", refusal("INVALID_EMAIL", field="email")),
        ("bob@example.com", "MEMBER", refusal("ALREADY_A_MEMBER", field="email")),
    ],
)
def test_an_invitation_that_makes_no_sense_is_refused(
    alice: Person, bob: Person, email: str, role: str, answer: dict[str, Any]
) -> None:
    assert invite(alice, email, role) == answer
    with operator():
        assert not Invitation.objects.exists() and not OutboxMessage.objects.exists()


@pytest.mark.django_db
def test_nobody_gives_more_than_they_have(alice: Person, bob: Person, vera: Person) -> None:
    before = roles(alice)
    not_allowed = refusal("NOT_ALLOWED", "PERMISSION")
    organization = global_id(alice.organization)
    for person in (bob, vera):
        assert ask(person, INVITE, organizationId=organization, email="x@example.com", role="VIEWER") == not_allowed
    ask(alice, CHANGE, organizationId=organization, userId=global_id(bob.user), role="ADMIN")
    assert ask(bob, INVITE, organizationId=organization, email="x@example.com", role="OWNER") == not_allowed
    assert ask(bob, CHANGE, organizationId=organization, userId=global_id(vera.user), role="OWNER") == not_allowed
    assert ask(bob, CHANGE, organizationId=organization, userId=global_id(alice.user), role="VIEWER") == not_allowed
    assert ask(bob, REMOVE, organizationId=organization, userId=global_id(alice.user)) == not_allowed
    assert roles(alice) == {**before, "Bob": "ADMIN"}


@pytest.mark.django_db
def test_a_stranger_learns_nothing(alice: Person, bob: Person, charlie: Person) -> None:
    not_found = refusal("NOT_FOUND", "ERROR")
    organization = global_id(alice.organization)
    assert ask(charlie, INVITE, organizationId=organization, email="x@example.com") == not_found
    assert ask(charlie, CHANGE, organizationId=organization, userId=global_id(bob.user), role="OWNER") == not_found
    assert ask(charlie, REMOVE, organizationId=organization, userId=global_id(bob.user)) == not_found
    assert ask(alice, REMOVE, organizationId=organization, userId=global_id(charlie.user)) == not_found
    assert "Bob" in roles(alice)


@pytest.mark.django_db
def test_an_organization_keeps_an_owner(alice: Person, bob: Person) -> None:
    organization, last_owner = global_id(alice.organization), refusal("LAST_OWNER", field="userId")
    assert ask(alice, REMOVE, organizationId=organization, userId=global_id(alice.user)) == last_owner
    assert ask(alice, CHANGE, organizationId=organization, userId=global_id(alice.user), role="ADMIN") == last_owner
    changed = ask(alice, CHANGE, organizationId=organization, userId=global_id(bob.user), role="OWNER")
    assert changed == {"__typename": "Membership", "role": "OWNER", "user": {"name": "Bob"}}
    assert ask(alice, REMOVE, organizationId=organization, userId=global_id(alice.user)) == DONE
    assert roles(bob) == {"Bob": "OWNER"}


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["remove", "MEMBER"])
def test_invitations_end_with_the_right_to_give_them(alice: Person, bob: Person, charlie: Person, change: str) -> None:
    organization, him = global_id(alice.organization), global_id(bob.user)
    ask(alice, CHANGE, organizationId=organization, userId=him, role="ADMIN")
    invite(bob, "charlie@example.com", "ADMIN")
    if change == "remove":
        ask(alice, REMOVE, organizationId=organization, userId=him)
    else:
        ask(alice, CHANGE, organizationId=organization, userId=him, role=change)
    with operator():
        log = AuditEntry.objects.filter(organization_id=alice.organization.pk).order_by("-sequence")
        told = [(entry.action, entry.actor) for entry in log[:2]]
    deed = "member.remove" if change == "remove" else "member.change_role"
    hers = f"user:{alice.user.pk}"
    assert told == [(deed, hers), ("invitation.withdraw", hers)]
    token = token_sent_to("charlie@example.com")
    assert ask(charlie, ACCEPT, token=token) == refusal("INVALID_TOKEN", field="token")
    assert "Charlie" not in roles(alice)


@pytest.mark.django_db
def test_whoever_has_left_does_nothing_more_in_the_same_request(alice: Person, bob: Person) -> None:
    organization = global_id(alice.organization)
    ask(alice, CHANGE, organizationId=organization, userId=global_id(bob.user), role="ADMIN")
    document = """mutation ($o: ID!, $me: ID!) {
      left: removeMember(input: {organizationId: $o, userId: $me}) { __typename }
      invited: inviteMember(input: {organizationId: $o, email: "x@example.com"}) { __typename }
      made: createApiKey(input: {organizationId: $o, name: "back"}) { __typename }
      changed: changeMemberRole(input: {organizationId: $o, userId: $me, role: ADMIN}) { __typename } }"""
    answer = bob.data(document, o=organization, me=global_id(bob.user))
    assert {name: value["__typename"] for name, value in answer.items()} == {
        "left": "Done",
        "invited": "OperationInfo",
        "made": "OperationInfo",
        "changed": "OperationInfo",
    }
    with operator():
        assert not ApiKey.objects.exists() and not Invitation.objects.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["Acme\n\nYour account is closed", "Ac\rme", "x" * 151, "\u0000"])
def test_no_name_writes_in_a_mail_of_ours(anonymous: Callable[..., dict[str, Any]], name: str) -> None:
    document = "mutation ($input: SignupInput!) { signup(input: $input) { __typename } }"
    asked = {"email": "eve@example.com", "password": PASSWORD}
    for field in ("organizationName", "name"):
        answer = anonymous(document, input={**asked, field: name})
        assert answer["data"]["signup"]["__typename"] == "OperationInfo", field


@pytest.mark.django_db
def test_a_member_who_leaves_sees_nothing_from_then_on(alice: Person, bob: Person) -> None:
    organization = global_id(alice.organization)
    seen = "query ($id: ID!) { organization(id: $id) { name } }"
    assert bob.data(seen, id=organization)["organization"] == {"name": alice.organization.name}
    assert ask(bob, REMOVE, organizationId=organization, userId=global_id(bob.user)) == DONE
    assert bob.data(seen, id=organization)["organization"] is None


@pytest.mark.django_db(transaction=True)
def test_of_two_owners_who_leave_at_once_one_stays() -> None:
    alice = make_person("Alice")
    bob = make_person("Bob", alice.organization)

    def leave(person: Person) -> bool:
        try:
            with tenant(person.principal):
                organizations.remove_member(
                    actor=person.principal, organization=person.organization, user_id=person.user.pk
                )
            return True
        except Invalid:
            return False
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as both:
        assert sorted(both.map(leave, [alice, bob])) == [False, True]
    assert list(roles(alice).values()) == [Role.OWNER]


def test_the_documentation_has_the_table_that_the_platform_goes_by() -> None:
    assert table() in (settings.BASE_DIR / "docs" / "api.md").read_text()


@pytest.mark.django_db(transaction=True)
def test_a_role_that_changes_meanwhile_is_the_one_that_counts() -> None:
    """Bob is made an owner while Eve, who may not touch owners, is about to demote him."""
    alice = make_person("Alice")
    bob, eve = (
        make_person(name, alice.organization, role) for name, role in (("Bob", Role.MEMBER), ("Eve", Role.ADMIN))
    )

    def demote() -> None:
        with tenant(eve.principal):
            organizations.change_member_role(
                actor=eve.principal, organization=eve.organization, user_id=bob.user.pk, role=Role.VIEWER
            )

    with in_another_thread() as begin:
        with tenant(alice.principal):
            organizations.change_member_role(
                actor=alice.principal, organization=alice.organization, user_id=bob.user.pk, role=Role.OWNER
            )
            demoting = begin(demote)
        with pytest.raises(NotAllowed):
            demoting.result(timeout=10)
    assert roles(alice)["Bob"] == "OWNER"


@pytest.mark.django_db(transaction=True)
def test_somebody_joins_while_a_key_is_made() -> None:
    """Each would wait for what the other has, if the key locked the organization's id."""
    alice, charlie = make_person("Alice"), make_person("Charlie")

    def make_key() -> None:
        with tenant(alice.principal):
            keys.create_key(
                actor=alice.principal, organization=alice.organization, name="CI", role=Role.MEMBER, expires_at=None
            )

    with in_another_thread() as begin:
        with operator():
            audit.record(alice.organization.pk, actor="user:1", action="member.join")
            making = begin(make_key)
            Membership.objects.create(organization=alice.organization, user=charlie.user, role=Role.VIEWER)
        making.result(timeout=10)
    with operator():
        assert ApiKey.objects.count() == 1
    assert roles(alice)["Charlie"] == "VIEWER"


@pytest.mark.django_db
def test_invitations_that_have_expired_go(alice: Person) -> None:
    invite(alice, "charlie@example.com")
    remove_expired_invitations()
    with operator():
        assert Invitation.objects.count() == 1
        Invitation.objects.update(expires_at=F("expires_at") - timedelta(days=7, seconds=1))
    remove_expired_invitations()
    with operator():
        assert not Invitation.objects.exists()
